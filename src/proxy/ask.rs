//! What is asked of a server: what it holds, and its time.

use std::time::Duration;

use tonic::Response;

use super::client::{Client, answer, request};
use super::status::{self, Effect};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::milvus::proto::common::{LoadState, Status};
use crate::milvus::proto::milvus as pb;
use crate::milvus::tso::Tso;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// An answer with a status in it.
pub(crate) trait Answer {
    fn status(&self) -> Option<&Status>;
}

impl Answer for Status {
    fn status(&self) -> Option<&Status> {
        Some(self)
    }
}

macro_rules! answers {
    ($($answer:ident)*) => {
        $(impl Answer for pb::$answer {
            fn status(&self) -> Option<&Status> {
                self.status.as_ref()
            }
        })*
    };
}

answers!(
    ListDatabasesResponse ShowCollectionsResponse DescribeCollectionResponse ShowPartitionsResponse
    DescribeIndexResponse GetLoadStateResponse AllocTimestampResponse ListCredUsersResponse SelectRoleResponse
    SelectGrantResponse ListPrivilegeGroupsResponse
);

impl Client {
    /// Makes one call and checks the status in its answer.
    pub(crate) async fn call<T: Answer>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T> {
        self.make(what, call, DEADLINE, Effect::Repeatable).await
    }

    /// Makes a call that changes something, within `deadline`. To repeat it comes to the same, but if its answer is lost it
    /// may take effect later, when the opposite has been done: that is `InDoubt`, caused by the call's own status.
    pub(crate) async fn change<T: Answer>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
        deadline: Duration,
    ) -> Result<T> {
        self.make(what, call, deadline, Effect::Rows).await
    }

    async fn make<T: Answer>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
        deadline: Duration,
        if_lost: Effect,
    ) -> Result<T> {
        let what = format!("{what} at {}", self.uri());
        let advise = |error| self.role().advise(error);
        let answered = answer(call, deadline, if_lost, &what).await.map_err(advise)?;
        status::check(answered.status(), Effect::Repeatable, &what).map_err(advise)?;
        Ok(answered)
    }

    /// The names of its databases.
    pub(crate) async fn databases(&self) -> Result<Vec<String>> {
        let mut rpc = self.rpc();
        let call = rpc.list_databases(request(pb::ListDatabasesRequest::default(), DEADLINE));
        Ok(self.call("listing databases", call).await?.db_names)
    }

    /// The names of a database's collections; none if the database is not there.
    pub(crate) async fn collections(&self, database: &str) -> Result<Vec<String>> {
        let message = pb::ShowCollectionsRequest { db_name: database.to_owned(), ..Default::default() };
        let what = format!("listing the collections of database {database}");
        let mut rpc = self.rpc();
        let call = rpc.show_collections(request(message, DEADLINE));
        Ok(none_if_missing(self.call(&what, call).await)?
            .map_or_else(Vec::new, |shown| shown.collection_names))
    }

    /// What stands under `name`; `None` if nothing does.
    pub(crate) async fn describe(
        &self,
        name: &CollectionName,
    ) -> Result<Option<pb::DescribeCollectionResponse>> {
        let message = pb::DescribeCollectionRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            ..Default::default()
        };
        let what = format!("describing collection {name}");
        let mut rpc = self.rpc();
        let call = rpc.describe_collection(request(message, DEADLINE));
        none_if_missing(self.call(&what, call).await)
    }

    /// The names of its partitions; `None` if the collection is not there.
    pub(crate) async fn partitions(&self, name: &CollectionName) -> Result<Option<Vec<String>>> {
        let message = pb::ShowPartitionsRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            ..Default::default()
        };
        let what = format!("listing partitions of {name}");
        let mut rpc = self.rpc();
        let call = rpc.show_partitions(request(message, DEADLINE));
        Ok(none_if_missing(self.call(&what, call).await)?.map(|shown| shown.partition_names))
    }

    /// The state of the collection, or of these partitions.
    pub(crate) async fn load_state(&self, name: &CollectionName, partitions: &[String]) -> Result<LoadState> {
        let message = pb::GetLoadStateRequest {
            db_name: name.database.clone(),
            collection_name: name.collection.clone(),
            partition_names: partitions.to_vec(),
            ..Default::default()
        };
        let what = format!("asking whether {name} is loaded");
        let mut rpc = self.rpc();
        let call = rpc.get_load_state(request(message, DEADLINE));
        Ok(self.call(&what, call).await?.state())
    }

    /// A time of the server's own that is later than everything that it has shown so far.
    pub(crate) async fn time(&self) -> Result<Tso> {
        if let Some(time) = self.clock() {
            return Ok(time);
        }
        let mut rpc = self.rpc();
        let call = rpc.alloc_timestamp(request(pb::AllocTimestampRequest::default(), DEADLINE));
        match self.call("asking for the time", call).await?.timestamp {
            0 => {
                let message = format!("asking for the time at {}: no time in the answer", self.uri());
                Err(Error::new(Kind::Unavailable, message))
            }
            time => Ok(Tso(time)),
        }
    }
}

/// Takes "it is not there" for an answer.
pub(crate) fn none_if_missing<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
