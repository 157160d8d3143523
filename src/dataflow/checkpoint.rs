//! The checkpoint: what a pipeline needs to go on exactly where it was, in RocksDB.
//!
//! | key | value |
//! |---|---|
//! | `format` | version of this layout |
//! | `pipeline` | whose state this is: the pipeline's name and what it must not change |
//! | `frontier` | F: every change with ts ≤ F is on the target |
//! | `position/<pchannel>` | where to read from to see everything with ts > F |
//! | `sent_high/<vchannel>` | the highest ts that any call sent so far may carry |
//! | `calls_until` | Unix milliseconds after which no call sent so far can still take effect |
//! | `clean` | present if nothing was in flight at the last stop |
//! | `database/<id>`, `collection/<id>` | what was made on the target, as far as it was made |
//! | `adopted/<id>` | a collection that was there before and was adopted |
//! | `intent/<id>` | a collection that is about to be created: it is ours if it is found there later |
//!
//! Every write is one synced `WriteBatch`, so each state on disk is one that the pipeline was in. Values are JSON:
//! they are few and small, and a person can read them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, Collection, CollectionId, Database, Ddl};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::tso::Tso;
use crate::pipeline::Pipeline;

/// The layout that this program reads and writes.
const FORMAT: u32 = 1;
/// How often opening the folder beside its owner is tried.
const PEEKS: u64 = 5;

/// Everything that the state folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// F, `None` before the first commit.
    pub frontier: Option<Tso>,
    /// Where to read each channel from.
    pub positions: BTreeMap<PChannel, Position>,
    /// Per shard the highest ts that may have been sent.
    pub sent_high: BTreeMap<VChannel, Tso>,
    /// When the last call that may have been sent is over, in Unix milliseconds.
    pub calls_until: u64,
    /// Whether the last run stopped with nothing in flight.
    pub clean: bool,
    /// The target's catalog as far as this pipeline made it.
    pub applied: Catalog,
    /// Collections that were there before and were adopted.
    pub adopted: BTreeSet<CollectionId>,
    /// Collections whose creation had begun.
    pub intents: BTreeSet<CollectionId>,
}

impl Checkpoint {
    /// The highest ts of `vchannel` whose rows may have reached the target beyond the frontier: rows up to it are in
    /// doubt. [`Tso::ZERO`] if none are.
    pub fn in_doubt_up_to(&self, vchannel: &VChannel) -> Tso {
        if self.clean { Tso::ZERO } else { self.sent_high.get(vchannel).copied().unwrap_or(Tso::ZERO) }
    }

    /// How long to wait until no call of the last run can still take effect.
    pub fn calls_over_in(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.clean { Duration::ZERO } else { Duration::from_millis(self.calls_until).saturating_sub(now) }
    }
}

/// One change of the checkpoint.
#[derive(Clone, Debug)]
pub enum Update {
    /// The frontier, and with it all positions.
    Frontier(Tso, BTreeMap<PChannel, Position>),
    /// What may be sent from now on: per shard, and until when its calls are over (Unix milliseconds). Undoes
    /// `Clean`.
    SentHigh(Vec<(VChannel, Tso)>, u64),
    /// This collection is about to be created.
    Intent(CollectionId),
    /// This collection was found on the target and adopted.
    Adopted(CollectionId),
    /// This step of the catalog has been brought about; the catalog after it.
    Applied(Ddl, Arc<Catalog>),
    /// Nothing is in flight and nothing will be sent.
    Clean,
}

/// The writing half: hands updates to a thread of its own, so that no operator waits for the disk. With the last clone
/// the folder is let go.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// `None` once the thread is to end.
    queue: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take().filter(|other| other.thread().id() != thread::current().id())
        {
            // It ends once everything submitted is written; a panic in it has been reported by then.
            drop(thread.join());
        }
    }
}

struct Request {
    updates: Vec<Update>,
    done: Box<dyn FnOnce(Result<()>) + Send>,
}

impl Writer {
    /// Makes `updates` durable, together with whatever else is waiting, and then calls `done` on the writer's thread.
    /// Requests become durable in the order in which they are submitted.
    pub fn submit(&self, updates: Vec<Update>, done: impl FnOnce(Result<()>) + Send + 'static) {
        let request = Request { updates, done: Box::new(done) };
        let unsent = match &self.0.queue {
            Some(queue) => queue.send(request).err().map(|error| error.into_inner()),
            None => Some(request),
        };
        if let Some(request) = unsent {
            (request.done)(Err(Error::new(Kind::Internal, "the checkpoint's writer has ended")));
        }
    }

    /// Makes `updates` durable before it returns.
    pub fn write(&self, updates: Vec<Update>) -> Result<()> {
        let (done, wait) = crossbeam_channel::bounded(1);
        self.submit(updates, move |result| {
            // The receiver is right below and waits.
            drop(done.send(result));
        });
        wait.recv().map_err(|_| Error::new(Kind::Internal, "the checkpoint's writer has ended"))?
    }
}

/// Opens the state folder of `pipeline`, creating it if it is new, and reads what it says.
///
/// What [`Pipeline::fingerprint`] covers may not change between runs on one folder. The folder stays locked until the
/// returned [`Writer`] and its clones are gone.
pub fn open(folder: &Path, pipeline: &Pipeline) -> Result<(Writer, Checkpoint)> {
    std::fs::create_dir_all(folder).map_err(|cause| {
        Error::new(Kind::Checkpoint, format!("can't create the state folder {}", folder.display()))
            .hint("set state_dir in the pipeline file to a folder that can be written to")
            .caused_by(cause)
    })?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_keep_log_file_num(2);
    options.set_max_total_wal_size(16 << 20);
    options.set_write_buffer_size(4 << 20);
    let db = DB::open(&options, folder).map_err(|cause| open_error(folder, cause))?;
    let store = Store { db, folder: folder.to_owned() };
    let checkpoint = store.load(pipeline)?;
    let (queue, requests) = crossbeam_channel::unbounded();
    let thread =
        thread::Builder::new().name("checkpoint".into()).spawn(move || store.serve(&requests)).map_err(
            |cause| Error::new(Kind::Internal, "can't start the checkpoint's writer").caused_by(cause),
        )?;
    Ok((Writer(Arc::new(Handle { queue: Some(queue), thread: Some(thread) })), checkpoint))
}

/// F of `pipeline`, read beside the process that may be running it. `None`: nothing was committed yet, or the folder is
/// not there.
///
/// # Errors
/// `Checkpoint`: the folder is another pipeline's, or can't be read.
pub fn peek(folder: &Path, pipeline: &Pipeline) -> Result<Option<Tso>> {
    if !folder.join("CURRENT").exists() {
        return Ok(None);
    }
    let mut options = Options::default();
    // A log of RocksDB's own, which would go into the folder otherwise.
    let scratch = std::env::temp_dir().join(format!("migrans-peek-{}", std::process::id()));
    options.set_db_log_dir(&scratch);
    options.set_keep_log_file_num(1);
    let mut attempt = 1;
    let result = loop {
        // The owner deletes files that it has replaced, perhaps just those that we were about to open.
        match DB::open_for_read_only(&options, folder, false) {
            Ok(db) => {
                let store = Store { db, folder: folder.to_owned() };
                break store.check_owner(pipeline).and_then(|()| store.get("frontier"));
            }
            Err(cause) if attempt == PEEKS => break Err(open_error(folder, cause)),
            Err(_) => thread::sleep(Duration::from_millis(20 * attempt)),
        }
        attempt += 1;
    };
    // Left over at worst in the system's folder for temporary files.
    drop(std::fs::remove_dir_all(scratch));
    result
}

/// Deletes the state in `folder`, and the folder if nothing else is in it. No [`Writer`] may have it open.
pub fn destroy(folder: &Path) -> Result<()> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Kind::Checkpoint, format!("can't delete the state folder {}", folder.display()))
            .hint("delete it by hand")
            .caused_by(cause)
    };
    DB::destroy(&Options::default(), folder).map_err(|cause| failed(cause.into()))?;
    match std::fs::remove_dir_all(folder.join("scratch")) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(failed(cause.into())),
        _ => {}
    }
    match std::fs::remove_dir(folder) {
        Err(cause)
            if !matches!(
                cause.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(failed(cause.into()))
        }
        _ => Ok(()),
    }
}

fn open_error(folder: &Path, cause: rocksdb::Error) -> Error {
    let text = cause.to_string();
    let place = folder.display();
    let error = if text.contains("lock") {
        Error::new(Kind::Checkpoint, format!("the state folder {place} is in use by another process")).hint(
            "one pipeline runs once: stop the other migrans, or give this pipeline a state_dir of its own",
        )
    } else if text.contains("No space left") {
        Error::new(Kind::Checkpoint, format!("no space left on the disk of the state folder {place}"))
            .hint("make room, then start again: nothing is lost")
    } else {
        Error::new(Kind::Checkpoint, format!("can't open the state folder {place}"))
            .hint("it must be a folder that migrans made, or an empty one")
    };
    error.caused_by(cause)
}

struct Store {
    db: DB,
    folder: PathBuf,
}

impl Store {
    fn serve(self, requests: &Receiver<Request>) {
        let mut failed = false;
        while let Ok(first) = requests.recv() {
            // Group commit: whatever came while the last sync ran shares the next one.
            let group: Vec<Request> = std::iter::once(first).chain(requests.try_iter()).collect();
            let result = if failed {
                // After a failed write the log's end is unknown: nothing may be promised on top of it.
                Err(Error::new(Kind::Checkpoint, "an earlier write to the state folder failed"))
            } else {
                self.write(group.iter().flat_map(|request| &request.updates))
            };
            failed |= result.is_err();
            for request in group {
                let result = result.as_ref().copied().map_err(|error| {
                    let copy = Error::new(error.kind(), error.message());
                    match error.hint_text() {
                        Some(hint) => copy.hint(hint),
                        None => copy,
                    }
                });
                (request.done)(result);
            }
        }
    }

    fn write<'a>(&self, updates: impl Iterator<Item = &'a Update>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for update in updates {
            self.stage(&mut batch, update)?;
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|cause| {
            let place = self.folder.display();
            if cause.to_string().contains("No space left") {
                Error::new(Kind::Checkpoint, format!("no space left on the disk of the state folder {place}"))
                    .hint("make room, then start again: nothing is lost")
            } else {
                Error::new(Kind::Checkpoint, format!("can't write to the state folder {place}: {cause}"))
                    .hint("mend the disk, then start again: nothing is lost")
            }
        })
    }

    fn stage(&self, batch: &mut WriteBatch, update: &Update) -> Result<()> {
        match update {
            Update::Frontier(frontier, positions) => {
                batch.put("frontier", encode(frontier)?);
                batch.delete_range("position/", "position0");
                for (channel, position) in positions {
                    batch.put(format!("position/{channel}"), encode(position)?);
                }
            }
            Update::SentHigh(highs, calls_until) => {
                for (vchannel, high) in highs {
                    batch.put(format!("sent_high/{vchannel}"), encode(high)?);
                }
                batch.put("calls_until", encode(calls_until)?);
                batch.delete("clean");
            }
            Update::Intent(id) => batch.put(format!("intent/{id}"), encode(id)?),
            Update::Adopted(id) => batch.put(format!("adopted/{id}"), encode(id)?),
            Update::Applied(ddl, catalog) => stage_applied(batch, ddl, catalog)?,
            Update::Clean => {
                batch.delete_range("sent_high/", "sent_high0");
                batch.put("clean", encode(&true)?);
            }
        }
        Ok(())
    }

    fn load(&self, pipeline: &Pipeline) -> Result<Checkpoint> {
        let place = self.folder.display();
        match self.get::<u32>("format")? {
            None => self.initialise(pipeline)?,
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Error::new(
                    Kind::Checkpoint,
                    format!("the state folder {place} has format {other}, this migrans knows {FORMAT}"),
                )
                .hint("run the version of migrans that wrote it, or start afresh with another state_dir"));
            }
        }
        self.check_owner(pipeline)?;
        let mut checkpoint = Checkpoint {
            frontier: self.get("frontier")?,
            calls_until: self.get("calls_until")?.unwrap_or(0),
            clean: self.get("clean")?.unwrap_or(false),
            ..Checkpoint::default()
        };
        for entry in self.db.iterator(IteratorMode::Start) {
            let (key, value) = entry.map_err(|cause| self.damaged("").caused_by(cause))?;
            let key = String::from_utf8_lossy(&key);
            let Some((kind, id)) = key.split_once('/') else { continue };
            match kind {
                "position" => {
                    checkpoint.positions.insert(PChannel(id.into()), self.decode(&key, &value)?);
                }
                "sent_high" => {
                    checkpoint.sent_high.insert(VChannel(id.into()), self.decode(&key, &value)?);
                }
                "intent" => {
                    checkpoint.intents.insert(self.decode(&key, &value)?);
                }
                "adopted" => {
                    checkpoint.adopted.insert(self.decode(&key, &value)?);
                }
                "database" => {
                    let database: Database = self.decode(&key, &value)?;
                    checkpoint.applied.databases.insert(database.id, database);
                }
                "collection" => {
                    let collection: Collection = self.decode(&key, &value)?;
                    checkpoint.applied.collections.insert(collection.id, collection);
                }
                _ => return Err(self.damaged(&key)),
            }
        }
        Ok(checkpoint)
    }

    fn check_owner(&self, pipeline: &Pipeline) -> Result<()> {
        let place = self.folder.display();
        let owner = self.get::<Owner>("pipeline")?.unwrap_or_default();
        if owner.name != pipeline.name {
            return Err(Error::new(
                Kind::Checkpoint,
                format!(
                    "the state folder {place} belongs to the pipeline {:?}, not to {:?}",
                    owner.name, pipeline.name
                ),
            )
            .hint("set state_dir in the pipeline file to a folder of its own"));
        }
        if owner.identity != pipeline.fingerprint() {
            let differences = pipeline.differences_from(&owner.identity).join("; ");
            return Err(Error::new(
                Kind::Checkpoint,
                format!(
                    "the state folder {place} was made for another source, selection or target: {differences}"
                ),
            )
            .hint("undo that change in the pipeline file, or start afresh with another name and state_dir"));
        }
        Ok(())
    }

    fn initialise(&self, pipeline: &Pipeline) -> Result<()> {
        if self.db.iterator(IteratorMode::Start).next().is_some() {
            return Err(Error::new(
                Kind::Checkpoint,
                format!(
                    "the folder {} holds a RocksDB that is not a state folder of migrans",
                    self.folder.display()
                ),
            )
            .hint("set state_dir in the pipeline file to an empty or new folder"));
        }
        let mut batch = WriteBatch::default();
        batch.put("format", encode(&FORMAT)?);
        batch.put(
            "pipeline",
            encode(&Owner { name: pipeline.name.clone(), identity: pipeline.fingerprint() })?,
        );
        batch.put("clean", encode(&true)?);
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|cause| open_error(&self.folder, cause))
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.db.get(key) {
            Ok(Some(value)) => self.decode(key, &value).map(Some),
            Ok(None) => Ok(None),
            Err(cause) => Err(self.damaged(key).caused_by(cause)),
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, value: &[u8]) -> Result<T> {
        serde_json::from_slice(value).map_err(|cause| self.damaged(key).caused_by(cause))
    }

    fn damaged(&self, key: &str) -> Error {
        Error::new(
            Kind::Checkpoint,
            format!("the state folder {} is damaged at record {key:?}", self.folder.display()),
        )
        .hint("restore it from a copy, or start afresh with another state_dir")
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Owner {
    name: String,
    identity: String,
}

fn stage_applied(batch: &mut WriteBatch, ddl: &Ddl, catalog: &Catalog) -> Result<()> {
    match ddl {
        Ddl::CreateDatabase(Database { id, .. }) | Ddl::DropDatabase { id, .. } => {
            let key = format!("database/{id}");
            match catalog.databases.get(id) {
                Some(database) => batch.put(key, encode(database)?),
                None => batch.delete(key),
            }
        }
        _ => {
            let Some(id) = ddl.collection() else { return Ok(()) };
            let key = format!("collection/{id}");
            match catalog.collections.get(&id) {
                Some(collection) => batch.put(key, encode(collection)?),
                None => {
                    batch.delete(key);
                    batch.delete(format!("adopted/{id}"));
                }
            }
            batch.delete(format!("intent/{id}"));
        }
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|cause| Error::new(Kind::Internal, "can't encode a checkpoint record").caused_by(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::catalog::CollectionName;

    fn pipeline(name: &str, root: &str) -> Pipeline {
        let text = format!(
            "name = \"{name}\"\nstate_dir = \"/state\"\n[source]\netcd = [\"http://127.0.0.1:2379\"]\nroot_path = \"{root}\"\n\
             [source.mq]\ntype = \"rocksmq\"\npath = \"/rdb\"\n[select]\ncollections = [\"default.*\"]\n\
             [target]\ntype = \"milvus\"\nuri = \"http://127.0.0.1:19530\"\n"
        );
        Pipeline::parse(&text, Path::new("p.toml"), &|_| None).unwrap()
    }

    fn open(folder: &Path, name: &str, root: &str) -> Result<(Writer, Checkpoint)> {
        super::open(folder, &pipeline(name, root))
    }

    fn channel(name: &str) -> PChannel {
        PChannel(name.into())
    }

    fn reopen(folder: &Path) -> Checkpoint {
        open(folder, "orders", "here").unwrap().1
    }

    fn collection(id: i64) -> Collection {
        let json = serde_json::json!({
            "id": id, "name": {"database": "default", "collection": "c"}, "created": 5,
            "schema": {"description": "", "dynamic": false, "fields": []}, "shards": 1, "consistency_level": 2,
            "properties": {}, "vchannels": ["a_1_7v0"], "start_positions": {"a_1": [1, 2]},
            "partitions": {"3": {"name": "_default", "created": 5}}, "indexes": {}, "load": null
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_frontier_can_be_seen_while_the_folder_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let see = |name| peek(folder.path(), &pipeline(name, "here"));
        assert_eq!(see("orders").unwrap(), None);
        let (writer, _) = open(folder.path(), "orders", "here").unwrap();
        assert_eq!(see("orders").unwrap(), None);
        for time in [7, 9] {
            writer.write(vec![Update::Frontier(Tso(time), BTreeMap::new())]).unwrap();
            assert_eq!(see("orders").unwrap(), Some(Tso(time)));
        }
        assert_eq!(see("others").unwrap_err().kind(), Kind::Checkpoint);
        drop(writer);
        assert_eq!(see("orders").unwrap(), Some(Tso(9)));
        assert_eq!(reopen(folder.path()).frontier, Some(Tso(9)));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, first) = open(folder.path(), "orders", "here").unwrap();
        assert_eq!(first, Checkpoint { clean: true, ..Checkpoint::default() });
        let mut applied = Catalog::default();
        applied.collections.insert(CollectionId(7), collection(7));
        let positions =
            BTreeMap::from([(channel("a_1"), Position(vec![1])), (channel("a_2"), Position(vec![2]))]);
        let vchannel = VChannel("a_1_7v0".into());
        writer
            .write(vec![
                Update::Intent(CollectionId(7)),
                Update::SentHigh(vec![(vchannel.clone(), Tso(50))], 1234),
                Update::Frontier(Tso(40), positions),
            ])
            .unwrap();
        drop(writer);
        let read = reopen(folder.path());
        assert_eq!(read.frontier, Some(Tso(40)));
        assert_eq!(read.positions.len(), 2);
        assert_eq!(read.intents, BTreeSet::from([CollectionId(7)]));
        assert_eq!((read.calls_until, read.clean), (1234, false));
        assert_eq!(read.in_doubt_up_to(&vchannel), Tso(50));

        let (writer, _) = open(folder.path(), "orders", "here").unwrap();
        let create = Ddl::CreateCollection(Arc::new(collection(7)));
        let left = BTreeMap::from([(channel("a_2"), Position(vec![9]))]);
        writer
            .write(vec![
                Update::Applied(create, Arc::new(applied.clone())),
                Update::Frontier(Tso(60), left.clone()),
                Update::Clean,
            ])
            .unwrap();
        drop(writer);
        let read = reopen(folder.path());
        assert_eq!((&read.applied, &read.positions), (&applied, &left), "retired channels are forgotten");
        assert!(read.intents.is_empty(), "an applied creation is no longer an intent");
        assert_eq!(read.in_doubt_up_to(&vchannel), Tso::ZERO, "nothing is in doubt after a clean stop");

        let (writer, _) = open(folder.path(), "orders", "here").unwrap();
        let name = CollectionName { database: "default".into(), collection: "c".into() };
        let drop_it = Ddl::DropCollection { id: CollectionId(7), name };
        writer.write(vec![Update::Applied(drop_it, Arc::default())]).unwrap();
        drop(writer);
        assert!(reopen(folder.path()).applied.collections.is_empty());
    }

    #[test]
    fn sending_again_undoes_a_clean_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = open(folder.path(), "orders", "here").unwrap();
        writer.write(vec![Update::Clean]).unwrap();
        writer.write(vec![Update::SentHigh(vec![(VChannel("v".into()), Tso(9))], 77)]).unwrap();
        drop(writer);
        let read = reopen(folder.path());
        assert!(!read.clean);
        assert_eq!(read.in_doubt_up_to(&VChannel("v".into())), Tso(9));
        assert_eq!(read.in_doubt_up_to(&VChannel("w".into())), Tso::ZERO);
    }

    #[test]
    fn a_folder_of_another_pipeline_or_purpose_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = open(folder.path(), "orders", "here").unwrap();
        let busy = open(folder.path(), "orders", "here").unwrap_err();
        assert!(busy.message().contains("in use by another process"), "{busy}");
        drop(writer);
        reopen(folder.path());
        let other = open(folder.path(), "invoices", "here").unwrap_err();
        assert_eq!(other.kind(), Kind::Checkpoint);
        assert!(other.message().contains("belongs to the pipeline \"orders\""), "{other}");
        let moved = open(folder.path(), "orders", "there").unwrap_err();
        assert!(moved.message().contains("made for another") && moved.message().contains("there"), "{moved}");
        let foreign = tempfile::tempdir().unwrap();
        let db = DB::open_default(foreign.path()).unwrap();
        db.put("by-dev/1", "x").unwrap();
        drop(db);
        let foreign = open(foreign.path(), "orders", "here").unwrap_err();
        assert!(foreign.message().contains("not a state folder"), "{foreign}");
    }

    #[test]
    fn a_newer_format_and_a_damaged_record_are_named() {
        let folder = tempfile::tempdir().unwrap();
        reopen(folder.path());
        let put = |key: &str, value: &str| {
            DB::open_default(folder.path()).unwrap().put(key, value).unwrap();
        };
        put("position/a_1", "[1,");
        let damaged = open(folder.path(), "orders", "here").unwrap_err();
        assert!(damaged.message().contains("damaged at record \"position/a_1\""), "{damaged}");
        put("format", "9");
        let newer = open(folder.path(), "orders", "here").unwrap_err();
        assert!(newer.message().contains("has format 9, this migrans knows 1"), "{newer}");
    }
}
