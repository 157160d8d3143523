//! Against a real etcd (of the distribution: testbed/install.sh) that the tests fill themselves, with
//! what was recorded from a real Milvus and with more of its kind.

use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::{Client, ConnectOptions, Permission, PermissionType, RoleGrantPermissionResponse};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::*;
use crate::etcd::testing::Etcd;
use crate::milvus::catalog::PartitionId;
use crate::milvus::proto::etcd::{CollectionInfo, PartitionInfo};
use crate::milvus::proto::schema::{CollectionSchema, FieldSchema};
use crate::pipeline::{MqConfig, RocksmqConfig, Secret, SourceConfig};
use crate::sources::catalog::CatalogSource;
use crate::sources::catalog::mirror::KeyChange;

const RECORDED: &str = include_str!("../testdata/milvus-2.3.5.txt");
const META: &str = "by-dev/meta/";
const SOON: Duration = Duration::from_secs(30);
const TOMBSTONE: [u8; 3] = [0xe2, 0x9b, 0xbc];

/// An etcd of our own, with what a Milvus keeps in it.
trait Filled {
    async fn fill(&self);
    fn config(&self) -> SourceConfig;
}

impl Filled for Etcd {
    async fn fill(&self) {
        let mut client = self.client().await.unwrap();
        for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
            let (key, hex) = line.split_once(' ').unwrap();
            let value: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            client.put(key, value, None).await.unwrap();
        }
    }

    fn config(&self) -> SourceConfig {
        SourceConfig {
            etcd: vec![self.address()],
            etcd_username: None,
            etcd_password: None,
            etcd_tls: None,
            root_path: "by-dev".into(),
            meta_path: "meta".into(),
            milvus: Default::default(),
            mq: MqConfig::Rocksmq(RocksmqConfig { path: "/nowhere".into() }),
            start: Default::default(),
            positions: Default::default(),
        }
    }
}

async fn connect(config: &SourceConfig) -> Result<CatalogSource> {
    CatalogSource::connect(config, |name: &CollectionName| !name.collection.starts_with("other")).await
}

async fn refused(config: &SourceConfig) -> Error {
    connect(config).await.err().expect("it should have been refused")
}

/// A source that is being followed, and what was said last.
struct Following {
    ticks: watch::Sender<Tso>,
    updates: mpsc::UnboundedReceiver<CatalogUpdate>,
    task: tokio::task::JoinHandle<Result<()>>,
    catalog: Arc<Catalog>,
    last: Option<CatalogUpdate>,
}

impl Following {
    async fn start(source: CatalogSource) -> Following {
        let (ticks, seen) = watch::channel(Tso::ZERO);
        let (updates_in, updates) = mpsc::unbounded_channel();
        let task = tokio::spawn(source.run(seen, move |update| drop(updates_in.send(update))));
        let mut following = Following { ticks, updates, task, catalog: Arc::default(), last: None };
        assert!(following.next().await.wanted.is_some());
        following
    }

    async fn next(&mut self) -> CatalogUpdate {
        let update =
            timeout(SOON, self.updates.recv()).await.expect("no update came").expect("the task ended");
        if let Some(catalog) = &update.wanted {
            self.catalog = Arc::clone(catalog);
        }
        self.last = Some(update.clone());
        update
    }

    /// Shows it a tick and waits until that is confirmed.
    async fn confirm(&mut self, tick: u64) -> CatalogUpdate {
        self.ticks.send(Tso(tick)).unwrap();
        loop {
            let update = self.next().await;
            if update.upto == Some(Tso(tick)) {
                return update;
            }
        }
    }

    async fn until(&mut self, what: impl Fn(&Catalog) -> bool) {
        while !what(&self.catalog) {
            self.next().await;
        }
    }

    fn has(&self, id: i64) -> bool {
        self.catalog.collections.contains_key(&CollectionId(id))
    }
}

fn collection_key(id: i64) -> String {
    format!("{META}root-coord/database/collection-info/1/{id}")
}

fn info(id: i64, name: &str, state: i32) -> Vec<u8> {
    CollectionInfo {
        id,
        schema: Some(CollectionSchema { name: name.into(), ..Default::default() }),
        create_time: u64::try_from(id).unwrap(),
        shards_num: 1,
        state,
        db_id: 1,
        ..Default::default()
    }
    .encode_to_vec()
}

fn partition_key(collection: i64, id: i64) -> String {
    format!("{META}root-coord/partitions/{collection}/{id}")
}

fn partition(collection: i64, id: i64, state: i32) -> Vec<u8> {
    let name = format!("p{id}");
    PartitionInfo {
        partition_id: id,
        partition_name: name,
        collection_id: collection,
        state,
        ..Default::default()
    }
    .encode_to_vec()
}

/// Creates a collection with `fields` fields in the steps that Milvus takes.
async fn create(client: &mut Client, id: i64, name: &str, fields: i64) {
    client.put(collection_key(id), info(id, name, 1), None).await.unwrap();
    client.put(partition_key(id, 1), partition(id, 1, 0), None).await.unwrap();
    create_fields(client, id, fields).await;
    client.put(collection_key(id), info(id, name, 0), None).await.unwrap();
}

async fn create_fields(client: &mut Client, id: i64, fields: i64) {
    for field_id in (0..2).chain(100..100 + fields) {
        let field =
            FieldSchema { field_id, name: format!("f{field_id}"), ..Default::default() }.encode_to_vec();
        client.put(format!("{META}root-coord/fields/{id}/{field_id}"), field, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_confirmed_with_all_that_was_created_before_it() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let mut following = Following::start(connect(&etcd.config()).await.unwrap()).await;
    let mut client = etcd.client().await.unwrap();
    // Writes of no interest, as there are many; they make every confirmation look.
    let noise = tokio::spawn({
        let mut client = client.clone();
        async move {
            loop {
                client.put(format!("{META}datacoord-meta/s/1/2/3"), "x", None).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for id in 1..=200_i64 {
        create(&mut client, id, &format!("c{id}"), 5).await;
        let tick = u64::try_from(id * 10).unwrap();
        following.ticks.send(Tso(tick)).unwrap();
        if id % 3 == 0 {
            client.put(partition_key(id, 2), partition(id, 2, 0), None).await.unwrap();
        }
        let update = following.confirm(tick + 1).await;
        let collection = &following.catalog.collections[&CollectionId(id)];
        assert_eq!(collection.schema.fields.len(), 5);
        assert_eq!(collection.partitions.contains_key(&PartitionId(2)), id % 3 == 0);
        assert!(update.ignored.is_empty());
    }
    noise.abort();
    // What was recorded is there too.
    assert_eq!(following.catalog.collections.len(), 203);
    drop(following.ticks);
    timeout(SOON, following.task).await.unwrap().unwrap().unwrap();
}

/// The watch mostly wins the race, so here is none, or one that brings what `until` says and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_needs_no_help_of_the_watch() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let mut client = etcd.client().await.unwrap();
    let meta = Meta::new("by-dev", "meta");
    let connection = Servers::new(&etcd.config()).unwrap().connect(&meta).await.unwrap();
    let mut view = View::new(&meta, connection.list(&meta).await.unwrap()).unwrap();
    let fields = |view: &View, id: i64| {
        let assembled = assemble(&view.mirror, &meta, &|_| true).unwrap();
        assembled.catalog.collections.get(&CollectionId(id)).map(|collection| collection.schema.fields.len())
    };
    for (id, watched) in [(1, false), (2, true), (3, false), (4, true)] {
        let confirmed = async |view: &mut View| {
            let floors = view.floors(0);
            let confirmation = confirm(connection.clone(), meta.clone(), Tso(1), floors).await.unwrap();
            view.absorb(&meta, confirmation).unwrap();
        };
        client.put(collection_key(id), info(id, "c", 1), None).await.unwrap();
        let begun = client.put(partition_key(id, 1), partition(id, 1, 0), None).await.unwrap();
        if watched {
            let revision = begun.header().unwrap().revision();
            let change = |key, revision, value| KeyChange { key, revision, value: Some(value) };
            let changes = [
                change(Key::Collection(CollectionId(id), Some(1)), revision - 1, info(id, "c", 1)),
                change(Key::Partition(CollectionId(id), PartitionId(1)), revision, partition(id, 1, 0)),
            ];
            view.mirror.absorb(Range::Collections, revision, changes);
        } else {
            confirmed(&mut view).await;
        }
        create_fields(&mut client, id, 5).await;
        // Nothing has begun since: the fields are not read.
        confirmed(&mut view).await;
        assert_eq!(fields(&view, id), None);
        client.put(collection_key(id), info(id, "c", 0), None).await.unwrap();
        confirmed(&mut view).await;
        assert_eq!(fields(&view, id), Some(5));
        // And a new partition of a collection that is there.
        client.put(partition_key(id, 2), partition(id, 2, 0), None).await.unwrap();
        confirmed(&mut view).await;
        assert!(view.mirror.get(&Key::Partition(CollectionId(id), PartitionId(2))).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_are_seen_with_their_times_also_by_who_comes_late() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let mut client = etcd.client().await.unwrap();
    let history = |key: &str, ts: u64| format!("{META}snapshots/{}_ts{ts}", key.strip_prefix(META).unwrap());
    for (id, name) in [(1, "a"), (2, "b"), (3, "other"), (4, "d")] {
        create(&mut client, id, name, 1).await;
        client.put(partition_key(id, 2), partition(id, 2, 0), None).await.unwrap();
        client.put(history(&collection_key(id), 5), info(id, name, 0), None).await.unwrap();
    }
    let mut following = Following::start(connect(&etcd.config()).await.unwrap()).await;
    assert_eq!(following.confirm(100).await.ignored.iter().collect::<Vec<_>>(), [&CollectionId(3)]);
    let before = Catalog::clone(&following.catalog);

    client.put(history(&collection_key(1), 150), info(1, "a", 2), None).await.unwrap();
    client.put(collection_key(1), info(1, "a", 2), None).await.unwrap();
    client.put(history(&partition_key(2, 2), 160), partition(2, 2, 2), None).await.unwrap();
    client.put(partition_key(2, 2), partition(2, 2, 2), None).await.unwrap();
    client.delete(collection_key(4), None).await.unwrap();
    following.until(|catalog| !catalog.collections.contains_key(&CollectionId(4))).await;
    let update = following.confirm(200).await;
    assert!(!following.has(1) && following.has(2));
    assert_eq!(update.drop_times.collections.iter().collect::<Vec<_>>(), [(&CollectionId(1), &Tso(150))]);
    assert_eq!(update.drop_times.partitions.iter().collect::<Vec<_>>(), [(&PartitionId(2), &Tso(160))]);
    following.confirm(Tso(250).after(Duration::from_secs(3000)).0).await;
    assert_eq!(following.last.as_ref().unwrap().drop_times.collections.len(), 1);
    following.confirm(Tso(250).after(Duration::from_secs(3601)).0).await;
    assert_eq!(following.last.as_ref().unwrap().drop_times.collections.len(), 0);

    client.put(history(&collection_key(1), 150), TOMBSTONE, None).await.unwrap();
    client.put(collection_key(1), TOMBSTONE, None).await.unwrap();
    let late = connect(&etcd.config()).await.unwrap().resume(before);
    let mut late = Following::start(late).await;
    let update = late.confirm(100).await;
    assert_eq!(update.drop_times.collections.get(&CollectionId(1)), Some(&Tso(150)));
    assert_eq!(update.drop_times.partitions.get(&PartitionId(2)), Some(&Tso(160)));
    assert_eq!(update.drop_times.collections.get(&CollectionId(4)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_restarts_and_compacts_is_waited_for() {
    let mut etcd = Etcd::start().await;
    etcd.fill().await;
    let source = connect(&etcd.config()).await.unwrap();
    let mut following = Following::start(source).await;
    let tick = AtomicUsize::new(1);
    let next_tick = || u64::try_from(tick.fetch_add(1, Ordering::Relaxed)).unwrap();
    following.confirm(next_tick()).await;
    for id in 1..=3 {
        etcd.kill();
        // A tick that comes while etcd is away is confirmed once it is there again.
        let missed = next_tick();
        following.ticks.send(Tso(missed)).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        etcd.start_again().await;
        let mut client = etcd.client().await.unwrap();
        create(&mut client, id, "new", 1).await;
        client.put(collection_key(id - 1), TOMBSTONE, None).await.unwrap();
        let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
        following.until(|catalog| catalog.collections.contains_key(&CollectionId(id))).await;
        assert!(!following.has(id - 1));
        following.confirm(next_tick()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_lost_its_past_stops_the_source() {
    let mut etcd = Etcd::start().await;
    etcd.fill().await;
    let following = Following::start(connect(&etcd.config()).await.unwrap()).await;
    etcd.kill();
    std::fs::remove_dir_all(etcd.folder.path().join("data")).unwrap();
    etcd.start_again().await;
    let error = timeout(SOON, following.task).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().contains(&etcd.address()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_read_stops_the_source_and_is_named() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let following = Following::start(connect(&etcd.config()).await.unwrap()).await;
    let mut client = etcd.client().await.unwrap();
    client.put(collection_key(7), vec![0x08], None).await.unwrap();
    let error = timeout(SOON, following.task).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().contains(&collection_key(7)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_name_and_password_are_asked_for_and_a_reader_of_the_metadata_is_enough() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let with = |user: &str, password: &str| SourceConfig {
        etcd_username: Some(user.into()),
        etcd_password: Some(Secret(password.into())),
        ..etcd.config()
    };
    let error = refused(&with("root", "secret")).await;
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.message().contains("no authentication"), "{error}");

    let mut client = etcd.client().await.unwrap();
    client.role_add("root").await.unwrap();
    client.role_add("reader").await.unwrap();
    let permission = Permission::new(PermissionType::Read, META).with_prefix();
    let _: RoleGrantPermissionResponse = client.role_grant_permission("reader", permission).await.unwrap();
    for (user, role) in [("root", Some("root")), ("reader", Some("reader")), ("nobody", None)] {
        client.user_add(user, "secret", None).await.unwrap();
        if let Some(role) = role {
            client.user_grant_role(user, role).await.unwrap();
        }
    }
    client.auth_enable().await.unwrap();
    for (config, words) in [
        (etcd.config(), "wants a user name"),
        (with("root", "wrong"), "refuses user name and password"),
        (with("stranger", "secret"), "refuses user name and password"),
        (with("nobody", "secret"), "does not let this user read"),
    ] {
        let error = refused(&config).await;
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.message().contains(words), "{error}");
        assert!(error.message().contains(&etcd.address()) && error.hint_text().is_some(), "{error:?}");
        assert!(!error.report().contains("secret"));
    }
    let mut following = Following::start(connect(&with("reader", "secret")).await.unwrap()).await;
    following.confirm(100).await;
    assert_eq!(following.catalog.collections.len(), 3);
    // What is written by others goes on being seen, and taking the right away ends it.
    let options = ConnectOptions::new().with_user("root", "secret");
    let mut root = Client::connect([etcd.address()], Some(options)).await.unwrap();
    create(&mut root, 5, "new", 1).await;
    following.confirm(200).await;
    assert!(following.has(5));
    root.user_revoke_role("reader", "reader").await.unwrap();
    following.ticks.send(Tso(300)).unwrap();
    let error = timeout(SOON, following.task).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_without_a_milvus_is_told_from_one_with_the_wrong_one() {
    let etcd = Etcd::start().await;
    let error = refused(&etcd.config()).await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().unwrap().contains("root_path"), "{error:?}");

    let mut client = etcd.client().await.unwrap();
    let session = |version: &str| format!(r#"{{"ServerID":1,"Version":"{version}"}}"#);
    client.put(format!("{META}session/rootcoord"), session("2.3.5"), None).await.unwrap();
    let error = refused(&etcd.config()).await;
    assert!(error.hint_text().unwrap().contains("TiKV"), "{error:?}");
    client.put(format!("{META}session/rootcoord"), session("2.6.1"), None).await.unwrap();
    let error = refused(&etcd.config()).await;
    assert_eq!(error.kind(), Kind::Version);
    assert!(error.message().contains("2.6.1"), "{error}");

    etcd.fill().await;
    let error = refused(&SourceConfig { root_path: "by-mistake".into(), ..etcd.config() }).await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().unwrap().contains("root_path = \"by-dev\""), "{error:?}");
    let source = connect(&etcd.config()).await.unwrap();
    assert_eq!(source.version().unwrap().to_string(), "2.3.5");
    assert_eq!(source.read().await.unwrap().catalog.collections.len(), 3);
    client.delete(format!("{META}session/rootcoord"), None).await.unwrap();
    assert_eq!(connect(&etcd.config()).await.unwrap().version(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_does_not_matter_if_another_one_answers() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let mut config = etcd.config();
    config.etcd.insert(0, "http://127.0.0.1:1".into());
    let mut following = Following::start(connect(&config).await.unwrap()).await;
    following.confirm(1).await;
    assert_eq!(following.catalog.collections.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_pages() {
    let etcd = Etcd::start().await;
    etcd.fill().await;
    let mut client = etcd.client().await.unwrap();
    for id in 1..=250 {
        create(&mut client, id, &format!("c{id}"), 20).await;
    }
    let read = connect(&etcd.config()).await.unwrap().read().await.unwrap();
    assert_eq!(read.catalog.collections.len(), 253);
    let fields = (1..=250).map(|id| read.catalog.collections[&CollectionId(id)].schema.fields.len());
    assert!(fields.into_iter().all(|fields| fields == 20));
}
