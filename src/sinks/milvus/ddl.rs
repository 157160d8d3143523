//! The steps of a catalog, each brought about and then checked by asking for it.
//!
//! Every step may be repeated: it first looks, or relies on an answer that says that there is nothing to do.
//! What a loaded collection does not allow (2.3: dropping an index or a loaded partition, another number of
//! replicas, going from a whole collection to some partitions) is done by releasing first, as a user has to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::compare;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::catalog::{Collection, CollectionName, Database, Ddl, Index, Load, Partition};
use crate::milvus::proto::common::{KeyValuePair, LoadState, MsgBase, ReplicateInfo};
use crate::milvus::proto::milvus as pb;
use crate::milvus::tso::Tso;
use crate::pipeline::TargetMode;
use crate::proxy::{Client, none_if_missing, request};
use crate::sources::catalog::ALTERABLE;
use prost::Message as _;

mod access;
mod names;

/// How long the effect of a call may take to show.
const DEADLINE: Duration = Duration::from_secs(30);
/// The first wait before a step is tried again whose failure Milvus did not explain; the next are longer.
const PAUSE: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 4;
/// The same for what is said not to be there: for about fifteen seconds.
const NOT_FOUND_ATTEMPTS: u32 = 6;
const DEFAULT_DATABASE: &str = "default";
const DEFAULT_PARTITION: &str = "_default";

/// Brings one step about.
///
/// # Errors
/// `Conflict` if something else stands under the name, `Refused` if the server says no, also if it says so in words
/// that don't tell whether it always will, but keeps saying it.
pub(super) async fn apply(client: &Client, ddl: &Ddl, deadline: Duration, mode: TargetMode) -> Result<()> {
    let steps = Steps { client, deadline, mode };
    patiently(|| steps.apply(ddl)).await
}

/// What stands under `name`; `None` if nothing does.
pub(super) async fn describe(
    client: &Client,
    name: &CollectionName,
) -> Result<Option<pb::DescribeCollectionResponse>> {
    patiently(|| client.describe(name)).await
}

/// Repeats what fails without an explanation a few times; then it counts as refused.
async fn patiently<T, F>(step: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for attempt in 1.. {
        match step().await {
            // What a step is about comes before it, so it is there: a proxy answers from what it remembers for a
            // moment after a partition was created (seen on 2.3.5).
            Err(error) if error.kind() == Kind::NotFound && attempt < NOT_FOUND_ATTEMPTS => {
                tracing::warn!(attempt, error = %error, "the target does not know it yet, trying again");
                tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
            }
            Err(error) if error.kind() == Kind::InDoubt && !was_lost(&error) => {
                if attempt == ATTEMPTS {
                    let message = format!("{} (so {ATTEMPTS} times)", error.message());
                    return Err(Error::new(Kind::Refused, message));
                }
                tracing::warn!(attempt, error = %error, "the target failed a step, trying again");
                tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
            }
            outcome => return outcome,
        }
    }
    Err(Error::new(Kind::Internal, "ran out of attempts"))
}

/// Whether a call ended without an answer of Milvus: it may take effect yet, so that nothing may follow it at once.
fn was_lost(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<tonic::Status>())
}

struct Steps<'a> {
    client: &'a Client,
    /// How long each call may take.
    deadline: Duration,
    /// A standby gets the times of the source: it skips rows that are earlier than their collection.
    mode: TargetMode,
}

impl Steps<'_> {
    async fn apply(&self, ddl: &Ddl) -> Result<()> {
        match ddl {
            Ddl::CreateDatabase(database) => self.create_database(database).await,
            Ddl::DropDatabase { name, .. } => self.drop_database(name).await,
            Ddl::CreateCollection(collection) => self.create_collection(collection).await,
            Ddl::DropCollection { name, .. } => self.drop_collection(name).await,
            Ddl::CreatePartition { name, partition, .. } => self.create_partition(name, partition).await,
            Ddl::DropPartition { name, partition, .. } => self.drop_partition(name, partition).await,
            Ddl::CreateIndex { name, index, .. } => self.create_index(name, index).await,
            Ddl::AlterIndex { name, index, removed, .. } => self.alter_index(name, index, removed).await,
            Ddl::DropIndex { name, index, .. } => self.drop_index(name, index).await,
            Ddl::SetLoad { name, from, to, .. } => self.set_load(name, from.as_ref(), to.as_ref()).await,
            Ddl::SetProperties { name, removed, properties, .. } => {
                self.set_properties(name, removed, properties).await
            }
            Ddl::SetDatabaseProperties { name, removed, properties, .. } => {
                self.set_database_properties(name, removed, properties).await
            }
            Ddl::RenameCollection { name, to, .. } => self.rename(name, to).await,
            Ddl::SetAlias { alias, name, from, .. } => self.set_alias(alias, name, from.as_ref()).await,
            Ddl::DropAlias { alias, .. } => self.drop_alias(alias).await,
            Ddl::Access(step) => self.access(step).await,
        }
    }

    async fn create_database(&self, database: &Database) -> Result<()> {
        if self.has_database(&database.name).await? {
            return Ok(());
        }
        let properties = match self.client.version().is_at_least(2, 4, 0) {
            true => compare::pairs(&database.properties),
            false => Vec::new(),
        };
        let message =
            pb::CreateDatabaseRequest { db_name: database.name.clone(), properties, ..Default::default() };
        let what = format!("creating database {}", database.name);
        self.client
            .change(&what, self.client.rpc().create_database(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, || self.has_database(&database.name)).await
    }

    /// For what is to be in a database of which nothing else is known.
    async fn create_database_by_name(&self, name: &str) -> Result<()> {
        let (name, created, properties) = (name.to_owned(), Default::default(), BTreeMap::new());
        self.create_database(&Database { id: 0, name, created, properties }).await
    }

    /// What a server says that it has can't be seen: 2.4 has no call for it in this protocol. Setting it again is harmless.
    async fn set_database_properties(
        &self,
        name: &str,
        removed: &BTreeSet<String>,
        properties: &BTreeMap<String, String>,
    ) -> Result<()> {
        let what = format!("setting properties of database {name}");
        if !self.client.version().is_at_least(2, 4, 0) {
            let message = format!("{what}: {} is a Milvus without them", self.client.uri());
            return Err(Error::new(Kind::Refused, message).hint("they need Milvus 2.4"));
        }
        for message in
            self.alterations(&what, removed, properties).into_iter().map(|(properties, delete_keys)| {
                pb::AlterDatabaseRequest {
                    db_name: name.to_owned(),
                    properties,
                    delete_keys,
                    ..Default::default()
                }
            })
        {
            let mut rpc = self.client.rpc();
            let call = rpc.alter_database(request(message, self.deadline));
            self.client.change(&what, call, self.deadline).await?;
        }
        failpoint::pass(Point::DdlUnchecked);
        Ok(())
    }

    /// The calls that an alteration takes: what to set, and what to remove. Milvus (2.5) takes one of both at a time, and
    /// earlier versions can't remove, which is told.
    fn alterations(
        &self,
        what: &str,
        removed: &BTreeSet<String>,
        properties: &BTreeMap<String, String>,
    ) -> Vec<(Vec<KeyValuePair>, Vec<String>)> {
        let mut calls = vec![(compare::properties(properties), Vec::new())];
        if !removed.is_empty() && self.client.version().is_at_least(2, 5, 0) {
            calls.push((Vec::new(), removed.iter().cloned().collect()));
        } else if !removed.is_empty() {
            tracing::warn!(
                "{what}: {removed:?} is no more at the source; Milvus before 2.5 can't take it away"
            );
        }
        calls.retain(|(set, remove)| !set.is_empty() || !remove.is_empty());
        calls
    }

    async fn alter_index(
        &self,
        name: &CollectionName,
        index: &Index,
        removed: &BTreeSet<String>,
    ) -> Result<()> {
        let what = format!("altering index {} of {name}", index.name);
        if !self.client.version().is_at_least(2, 4, 0) {
            let message = format!("{what}: {} is a Milvus that can't", self.client.uri());
            return Err(Error::new(Kind::Refused, message).hint("it needs Milvus 2.4"));
        }
        let kept = |(key, _): &(&String, &String)| ALTERABLE.contains(&key.as_str());
        let params =
            index.params.iter().filter(kept).map(|(key, value)| (key.clone(), value.clone())).collect();
        for (extra_params, delete_keys) in self.alterations(&what, removed, &params) {
            let message = pb::AlterIndexRequest {
                db_name: name.database.clone(),
                collection_name: name.collection.clone(),
                index_name: index.name.clone(),
                extra_params,
                delete_keys,
                ..Default::default()
            };
            let mut rpc = self.client.rpc();
            let call = rpc.alter_index(request(message, self.deadline));
            self.client.change(&what, call, self.deadline).await?;
        }
        self.until(&what, || self.has_index(name, index)).await
    }

    async fn drop_database(&self, name: &str) -> Result<()> {
        if !self.has_database(name).await? {
            return Ok(());
        }
        let message = pb::DropDatabaseRequest { db_name: name.to_owned(), ..Default::default() };
        let what = format!("dropping database {name}");
        let dropped = self
            .client
            .change(&what, self.client.rpc().drop_database(request(message, self.deadline)), self.deadline)
            .await;
        dropped.map_err(|error| match error.message().contains("not empty") {
            true => {
                Error::new(Kind::Conflict, format!("database {name} at {} is not empty", self.client.uri()))
                    .hint("it holds collections that this pipeline did not create: drop or move them")
            }
            false => error,
        })?;
        self.until(&what, || async { Ok(!self.has_database(name).await?) }).await
    }

    async fn has_database(&self, name: &str) -> Result<bool> {
        Ok(name == DEFAULT_DATABASE || self.client.databases().await?.iter().any(|listed| listed == name))
    }

    async fn create_collection(&self, collection: &Collection) -> Result<()> {
        let name = &collection.name;
        self.create_database_by_name(&name.database).await?;
        if self.client.describe(name).await?.is_none() {
            let partition_count = i64::try_from(collection.partitions.len()).unwrap_or(0);
            let message = pb::CreateCollectionRequest {
                db_name: name.database.clone(),
                collection_name: name.collection.clone(),
                base: self.base(collection.created),
                schema: compare::schema(collection, self.mode)?.encode_to_vec(),
                shards_num: collection.shards,
                consistency_level: collection.consistency_level,
                properties: compare::properties(&collection.properties),
                num_partitions: if collection.has_partition_key() { partition_count } else { 0 },
            };
            let what = format!("creating collection {name}");
            self.client
                .change(
                    &what,
                    self.client.rpc().create_collection(request(message, self.deadline)),
                    self.deadline,
                )
                .await?;
            failpoint::pass(Point::DdlUnchecked);
        }
        let Some(described) = self.client.describe(name).await? else {
            return Err(Error::new(
                Kind::Unavailable,
                format!("collection {name} was created at {} but is not there", self.client.uri()),
            ));
        };
        let differences = compare::differences(collection, &described, self.mode);
        if !differences.is_empty() {
            let message = format!(
                "collection {name} at {} is another one: {}",
                self.client.uri(),
                differences.join("; ")
            );
            return Err(
                Error::new(Kind::Conflict, message).hint("drop or rename it, or leave it out in [select]")
            );
        }
        if !collection.has_partition_key() {
            for partition in collection.partitions.values() {
                self.create_partition(name, partition).await?;
            }
        }
        Ok(())
    }

    fn base(&self, created: Tso) -> Option<MsgBase> {
        (self.mode == TargetMode::Replicate).then(|| MsgBase {
            replicate_info: Some(ReplicateInfo { is_replicate: true, msg_timestamp: created.0 }),
            ..Default::default()
        })
    }

    async fn drop_collection(&self, name: &CollectionName) -> Result<()> {
        if self.client.describe(name).await?.is_none() {
            return Ok(());
        }
        let message = pb::DropCollectionRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            ..Default::default()
        };
        let what = format!("dropping collection {name}");
        self.client
            .change(&what, self.client.rpc().drop_collection(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, || async { Ok(self.client.describe(name).await?.is_none()) }).await
    }

    async fn create_partition(&self, name: &CollectionName, partition: &Partition) -> Result<()> {
        let created = partition.created;
        let partition = partition.name.as_str();
        let is_there = || async {
            let partitions = self.client.partitions(name).await?.ok_or_else(|| {
                Error::new(Kind::NotFound, format!("collection {name} is not there at {}", self.client.uri()))
            })?;
            Ok(partitions.iter().any(|listed| listed == partition))
        };
        if partition == DEFAULT_PARTITION || is_there().await? {
            return Ok(());
        }
        let message = pb::CreatePartitionRequest {
            base: self.base(created),
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            partition_name: partition.to_owned(),
        };
        let what = format!("creating partition {partition} of {name}");
        self.client
            .change(&what, self.client.rpc().create_partition(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, is_there).await
    }

    async fn drop_partition(&self, name: &CollectionName, partition: &str) -> Result<()> {
        let is_gone = || async {
            let partitions = self.client.partitions(name).await?;
            Ok(partitions.is_none_or(|partitions| !partitions.iter().any(|listed| listed == partition)))
        };
        if is_gone().await? {
            return Ok(());
        }
        let only = BTreeSet::from([partition.to_owned()]);
        self.release_partitions(name, &only).await?;
        let message = pb::DropPartitionRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            partition_name: partition.to_owned(),
            ..Default::default()
        };
        let what = format!("dropping partition {partition} of {name}");
        self.client
            .change(&what, self.client.rpc().drop_partition(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, is_gone).await
    }

    async fn has_index(&self, name: &CollectionName, index: &Index) -> Result<bool> {
        let message = pb::DescribeIndexRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            ..Default::default()
        };
        let what = format!("describing the indexes of {name}");
        let mut rpc = self.client.rpc();
        let call = rpc.describe_index(request(message, self.deadline));
        let Some(described) = none_if_missing(self.client.call(&what, call).await)? else { return Ok(false) };
        let mut found = described.index_descriptions.iter();
        Ok(found.any(|found| found.index_name == index.name && found.field_name == index.field))
    }

    /// The server itself answers a second CreateIndex: with success if it is the same one, else with a refusal.
    async fn create_index(&self, name: &CollectionName, index: &Index) -> Result<()> {
        let message = pb::CreateIndexRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            field_name: index.field.clone(),
            extra_params: compare::pairs(&index.params),
            index_name: index.name.clone(),
            ..Default::default()
        };
        let what = format!("creating index {} on field `{}` of {name}", index.name, index.field);
        self.client
            .change(&what, self.client.rpc().create_index(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, || self.has_index(name, index)).await
    }

    /// Leaves the collection released if it was loaded: 2.3 drops no index of a loaded one.
    async fn drop_index(&self, name: &CollectionName, index: &Index) -> Result<()> {
        if !self.has_index(name, index).await? {
            return Ok(());
        }
        if self.client.load_state(name, &[]).await? != LoadState::NotLoad {
            self.release(name).await?;
        }
        let message = pb::DropIndexRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            field_name: index.field.clone(),
            index_name: index.name.clone(),
            ..Default::default()
        };
        let what = format!("dropping index {} of {name}", index.name);
        self.client
            .change(&what, self.client.rpc().drop_index(request(message, self.deadline)), self.deadline)
            .await?;
        self.until(&what, || async { Ok(!self.has_index(name, index).await?) }).await
    }

    /// Loading goes on after this: it is enough that the server has begun.
    async fn set_load(&self, name: &CollectionName, from: Option<&Load>, to: Option<&Load>) -> Result<()> {
        let Some(to) = to else {
            return match self.client.describe(name).await? {
                Some(_) => self.release(name).await,
                None => Ok(()),
            };
        };
        match (from, &to.partitions) {
            (Some(from), _) if from.replicas != to.replicas => self.release(name).await?,
            (Some(_), Some(after)) => {
                let there = self.client.partitions(name).await?.unwrap_or_default();
                let gone = there.into_iter().filter(|partition| !after.contains(partition));
                self.release_partitions(name, &gone.collect()).await?;
            }
            _ => {}
        }
        let replicas = to.replicas.max(1);
        let what = match &to.partitions {
            None => format!("loading collection {name} with {replicas} replicas"),
            Some(partitions) => {
                let partitions = Vec::from_iter(partitions.iter().map(String::as_str)).join(", ");
                format!("loading partitions {partitions} of {name} with {replicas} replicas")
            }
        };
        match &to.partitions {
            None => {
                let message = pb::LoadCollectionRequest {
                    db_name: name.database.clone(),
                    collection_name: name.collection.clone(),
                    replica_number: replicas,
                    ..Default::default()
                };
                self.client
                    .change(
                        &what,
                        self.client.rpc().load_collection(request(message, self.deadline)),
                        self.deadline,
                    )
                    .await?;
                self.until(&what, || async { Ok(is_loaded(self.client.load_state(name, &[]).await?)) }).await
            }
            Some(partitions) => {
                let message = pb::LoadPartitionsRequest {
                    db_name: name.database.clone(),
                    collection_name: name.collection.clone(),
                    partition_names: partitions.iter().cloned().collect(),
                    replica_number: replicas,
                    ..Default::default()
                };
                self.client
                    .change(
                        &what,
                        self.client.rpc().load_partitions(request(message, self.deadline)),
                        self.deadline,
                    )
                    .await?;
                for partition in partitions {
                    let only = [partition.clone()];
                    self.until(&what, || async { Ok(is_loaded(self.client.load_state(name, &only).await?)) })
                        .await?;
                }
                Ok(())
            }
        }
    }

    async fn release(&self, name: &CollectionName) -> Result<()> {
        let message = pb::ReleaseCollectionRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            ..Default::default()
        };
        let what = format!("releasing collection {name}");
        self.client
            .change(
                &what,
                self.client.rpc().release_collection(request(message, self.deadline)),
                self.deadline,
            )
            .await?;
        self.until(&what, || async { Ok(!is_loaded(self.client.load_state(name, &[]).await?)) }).await
    }

    /// Releases those of `partitions` that are there and loaded.
    async fn release_partitions(&self, name: &CollectionName, partitions: &BTreeSet<String>) -> Result<()> {
        let there = self.client.partitions(name).await?.unwrap_or_default();
        for partition in partitions.iter().filter(|partition| there.contains(partition)) {
            let only = [partition.clone()];
            if !is_loaded(self.client.load_state(name, &only).await?) {
                continue;
            }
            let message = pb::ReleasePartitionsRequest {
                db_name: name.database.clone(),
                collection_name: name.collection.clone(),
                partition_names: only.to_vec(),
                ..Default::default()
            };
            let what = format!("releasing partition {partition} of {name}");
            self.client
                .change(
                    &what,
                    self.client.rpc().release_partitions(request(message, self.deadline)),
                    self.deadline,
                )
                .await?;
            self.until(&what, || async { Ok(!is_loaded(self.client.load_state(name, &only).await?)) })
                .await?;
        }
        Ok(())
    }

    /// Sets properties. What the target has beyond these is told.
    async fn set_properties(
        &self,
        name: &CollectionName,
        removed: &BTreeSet<String>,
        properties: &BTreeMap<String, String>,
    ) -> Result<()> {
        let wanted = compare::properties(properties);
        let what = format!("setting properties of collection {name}");
        for (properties, delete_keys) in self.alterations(&what, removed, properties) {
            let message = pb::AlterCollectionRequest {
                db_name: name.database.clone(),
                collection_name: name.collection.clone(),
                properties,
                delete_keys,
                ..Default::default()
            };
            let mut rpc = self.client.rpc();
            let call = rpc.alter_collection(request(message, self.deadline));
            self.client.change(&what, call, self.deadline).await?;
        }
        let found = || async {
            let described = self.client.describe(name).await?;
            described.map(|described| described.properties).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("collection {name} is not there at {}", self.client.uri()))
            })
        };
        self.until(&what, || async {
            let found = found().await?;
            Ok(wanted.iter().all(|pair| found.contains(pair)))
        })
        .await?;
        for extra in found().await?.iter().filter(|pair| !properties.contains_key(&pair.key)) {
            tracing::warn!(collection = %name, property = %extra.key, value = %extra.value,
                "the target has a property that the source does not have");
        }
        Ok(())
    }

    /// Waits until what was done shows.
    async fn until<F>(&self, what: &str, is_so: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let end = Instant::now() + DEADLINE;
        let mut pause = Duration::from_millis(10);
        failpoint::pass(Point::DdlUnchecked);
        while !is_so().await? {
            if Instant::now() >= end {
                let message = format!("{what} at {} does not show after {DEADLINE:?}", self.client.uri());
                return Err(Error::new(Kind::Unavailable, message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(())
    }
}

fn is_loaded(state: LoadState) -> bool {
    matches!(state, LoadState::Loading | LoadState::Loaded)
}
