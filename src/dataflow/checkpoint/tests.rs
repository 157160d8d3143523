use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rocksdb::DB;

use super::*;
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::milvus::catalog::{Catalog, Collection, CollectionId, CollectionName, Database, Ddl};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::tso::Tso;

fn pipeline(name: &str, root: &str) -> Pipeline {
    let text = format!(
        "name = \"{name}\"\nstate_dir = \"/state\"\n[source]\netcd = [\"http://127.0.0.1:2379\"]\nroot_path = \"{root}\"\n\
         [source.mq]\ntype = \"rocksmq\"\npath = \"/rdb\"\n[select]\ncollections = [\"default.*\"]\n\
         [target]\ntype = \"milvus\"\nuri = \"http://127.0.0.1:19530\"\n"
    );
    Pipeline::parse(&text, Path::new("p.toml"), &|_| None).unwrap()
}

fn open(folder: &Path, name: &str, root: &str) -> Result<(Writer, Checkpoint)> {
    super::open(Store::open(folder)?, &pipeline(name, root))
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
            Update::Intent(Ddl::CreateCollection(Arc::new(collection(7)))),
            Update::SentHigh(vec![(vchannel.clone(), Tso(50))], 1234),
            Update::Clock(Clock::go_on(None)),
            Update::Frontier(Tso(40), positions),
        ])
        .unwrap();
    drop(writer);
    let read = reopen(folder.path());
    assert_eq!(read.frontier, Some(Tso(40)));
    assert_eq!(read.positions.len(), 2);
    assert_eq!(read.intents, [Ddl::CreateCollection(Arc::new(collection(7)))]);
    assert_eq!((read.calls_until, read.clean), (1234, false));
    assert_eq!(read.clock, Some(Clock::go_on(read.clock.as_ref())));
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
    let gone = Update::Applied(drop_it.clone(), Arc::default());
    writer.write(vec![gone.clone(), Update::Intent(drop_it.clone())]).unwrap();
    drop(writer);
    let read = reopen(folder.path());
    assert!(read.applied.collections.is_empty(), "nobody knows the rows of what is about to be dropped");
    assert_eq!(read.intents, [drop_it], "but it is still to be dropped");

    let (writer, _) = open(folder.path(), "orders", "here").unwrap();
    writer.write(vec![gone]).unwrap();
    drop(writer);
    assert!(reopen(folder.path()).intents.is_empty());
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
    assert!(foreign.message().contains("not the state of a pipeline"), "{foreign}");
}

/// A folder with a record of every sort, and its records.
fn full() -> (tempfile::TempDir, Records) {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _) = open(folder.path(), "orders", "here").unwrap();
    let mut applied = Catalog::default();
    applied.collections.insert(CollectionId(7), collection(7));
    let database = Database { id: 2, name: "d".into(), created: Tso(3), properties: BTreeMap::new() };
    applied.databases.insert(2, database.clone());
    let applied = Arc::new(applied);
    writer
        .write(vec![
            Update::Frontier(Tso(40), BTreeMap::from([(channel("a_1"), Position(vec![1]))])),
            Update::Applied(Ddl::CreateDatabase(database), Arc::clone(&applied)),
            Update::Applied(Ddl::CreateCollection(Arc::new(collection(7))), applied),
            Update::Intent(Ddl::CreateCollection(Arc::new(collection(8)))),
            Update::Adopted(CollectionId(7)),
            Update::SentHigh(vec![(VChannel("a_1_7v0".into()), Tso(50))], 1234),
        ])
        .unwrap();
    drop(writer);
    let records = Store::open(folder.path()).unwrap().records().unwrap();
    assert_eq!(records.len(), 11, "{records:?}");
    (folder, records)
}

fn rewrite(folder: &Path, records: &Records) {
    let mut store = Store::open(folder).unwrap();
    let mut changes: Vec<RecordChange> =
        store.records().unwrap().into_keys().map(RecordChange::Delete).collect();
    changes.extend(records.iter().map(|(key, value)| RecordChange::Put(key.clone(), value.clone())));
    store.write(&changes).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_and_its_record_named() {
    let (_folder, records) = full();
    records::check(&records).unwrap();
    for (key, value) in &records {
        for place in 0..value.len() * 8 {
            let mut changed = records.clone();
            changed.get_mut(key).unwrap()[place / 8] ^= 1 << (place % 8);
            let error = records::check(&changed).unwrap_err();
            assert_eq!(error.kind(), Kind::Checkpoint);
            assert!(error.message().contains(&format!("{key:?}")), "{key} bit {place}: {error}");
            assert!(error.hint_text().unwrap().contains("migrans checkpoint import"), "{error:?}");
        }
    }
}

#[test]
fn a_record_that_is_missing_unknown_old_or_exchanged_is_noticed() {
    let (folder, records) = full();
    for key in records.keys() {
        let mut changed = records.clone();
        changed.remove(key);
        rewrite(folder.path(), &changed);
        let error = open(folder.path(), "orders", "here").unwrap_err();
        let message = error.message().to_owned();
        assert!(message.contains(&folder.path().display().to_string()), "{message}");
        match key.as_str() {
            "format" => assert!(message.contains("not the state of a pipeline"), "{message}"),
            "pipeline" | "seal" => assert!(message.contains(&format!("{key:?}: it is missing")), "{message}"),
            _ => assert!(message.contains("there are to be 10 records, there are 9"), "{key}: {message}"),
        }
    }
    let damage = |change: &dyn Fn(&mut Records)| {
        let mut changed = records.clone();
        change(&mut changed);
        rewrite(folder.path(), &changed);
        open(folder.path(), "orders", "here").unwrap_err().message().to_owned()
    };
    let put = |records: &mut Records, key: &str, value: &str| {
        records::apply(records, &[records::put(key, &value).unwrap()]);
    };
    let unknown = damage(&|records| put(records, "positions/a", "x"));
    assert!(unknown.contains("damaged at record \"positions/a\""), "{unknown}");
    let old = damage(&|records| {
        records::apply(records, &[records::put("frontier", &Tso(39)).unwrap()]);
    });
    assert!(old.contains("not the one that was written last"), "{old}");
    let exchanged = damage(&|records| {
        let other = records["frontier"].clone();
        records.insert("calls_until".into(), other);
    });
    assert!(exchanged.contains("\"calls_until\": its checksum is wrong"), "{exchanged}");
    rewrite(folder.path(), &records);
    reopen(folder.path());
}

#[test]
fn another_format_is_refused_with_the_way_out() {
    let (folder, mut records) = full();
    let mut refused = |format: Vec<u8>| {
        records.insert("format".into(), format);
        rewrite(folder.path(), &records);
        open(folder.path(), "orders", "here").unwrap_err()
    };
    let RecordChange::Put(_, newer) = records::put("format", &9).unwrap() else { unreachable!() };
    let newer = refused(newer);
    assert!(newer.message().contains("format 9, which is newer: this migrans knows 2"), "{newer}");
    assert!(newer.hint_text().unwrap().contains("the version of migrans that wrote it"), "{newer:?}");
    let older = refused(b"1".to_vec());
    assert!(older.message().contains("format 1 of an early migrans"), "{older}");
    assert!(older.hint_text().unwrap().contains("checkpoint reset"), "{older:?}");
}

#[test]
fn values_can_be_read_by_people() {
    let (_folder, records) = full();
    assert!(records["frontier"].starts_with(b"40 #"), "{:?}", records["frontier"]);
    assert!(records["sent_high/a_1_7v0"].starts_with(b"50 #"));
}

/// A second place, which can fail.
struct Second(Arc<Mutex<Records>>, Arc<AtomicBool>);

impl Storage for Second {
    fn write(&mut self, changes: &[RecordChange]) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Checkpoint, "the second place is gone"));
        }
        records::apply(&mut self.0.lock().unwrap(), changes);
        Ok(())
    }
}

#[test]
fn a_second_place_holds_the_same_and_a_checkpoint_is_read_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let first = load(&mut store, &pipeline("orders", "here")).unwrap();
    let (held, gone) = (Arc::new(Mutex::new(first.clone())), Arc::new(AtomicBool::new(false)));
    let second = Second(Arc::clone(&held), Arc::clone(&gone));
    let writer = Writer::start(&first, vec![Box::new(store), Box::new(second)]).unwrap();
    let positions = |name| BTreeMap::from([(channel(name), Position(vec![1]))]);
    writer.write(vec![Update::Frontier(Tso(40), positions("a_1"))]).unwrap();
    writer.write(vec![Update::SentHigh(vec![(VChannel("a_1_7v0".into()), Tso(50))], 12)]).unwrap();
    writer.write(vec![Update::Frontier(Tso(41), positions("a_2")), Update::Clean]).unwrap();
    gone.store(true, Ordering::Relaxed);
    let error =
        writer.write(vec![Update::Intent(Ddl::CreateCollection(Arc::new(collection(1))))]).unwrap_err();
    assert!(error.message().contains("the second place is gone"), "{error}");
    gone.store(false, Ordering::Relaxed);
    let error = writer.write(vec![Update::Clean]).unwrap_err();
    assert!(error.message().contains("an earlier write"), "nothing on top of a failed write: {error}");
    drop(writer);
    let held = held.lock().unwrap();
    records::check(&held).unwrap();
    let there = Checkpoint::from_records(&held).unwrap();
    assert_eq!((there.frontier, there.clean), (Some(Tso(41)), true));
    assert_eq!(there.positions, positions("a_2"));
    let here = reopen(folder.path());
    assert_eq!(here.intents.len(), 1, "the first place is written first");
    assert_eq!(Checkpoint { intents: Vec::new(), ..here }, there);
}

#[test]
fn it_can_be_looked_at_while_somebody_writes() {
    let folder = tempfile::tempdir().unwrap();
    assert!(look(folder.path()).unwrap_err().message().contains("there is no state"));
    let (writer, _) = open(folder.path(), "orders", "here").unwrap();
    for ts in 1..50 {
        writer.write(vec![Update::Frontier(Tso(ts), BTreeMap::new())]).unwrap();
        let seen = Checkpoint::from_records(&look(folder.path()).unwrap()).unwrap();
        assert_eq!(seen.frontier, Some(Tso(ts)));
    }
    drop(writer);
    reopen(folder.path());
}

#[test]
fn records_take_the_place_of_others_at_once() {
    let (_other, new) = full();
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), "orders", "here").unwrap());
    let mut store = Store::open(folder.path()).unwrap();
    let old = store.records().unwrap();
    let imported = Checkpoint::from_records(&new).unwrap();
    replace(&mut store, &old, &new, &[imported.doubted(Tso(90), 4321)]).unwrap();
    drop(store);
    let read = reopen(folder.path());
    assert_eq!((read.frontier, read.clean, read.calls_until), (Some(Tso(40)), false, 4321));
    assert_eq!(read.in_doubt_up_to(&VChannel("a_1_7v0".into())), Tso(90));
    assert_eq!(read.applied, imported.applied);
}

#[test]
fn a_damaged_file_of_the_store_is_no_folder_in_use() {
    let (folder, _) = full();
    // Into a table file, so that its blocks are read.
    DB::open_default(folder.path()).unwrap().flush().unwrap();
    let tables: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in tables {
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&table, bytes).unwrap();
    }
    let error = open(folder.path(), "orders", "here").unwrap_err();
    assert!(error.message().contains("is damaged"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("migrans checkpoint reset"), "{error:?}");
    destroy(folder.path()).unwrap();
    reopen(folder.path());
}

#[test]
fn a_damaged_log_does_not_look_like_an_earlier_state() {
    let (folder, _) = full();
    let (writer, _) = open(folder.path(), "orders", "here").unwrap();
    for ts in 41..60 {
        writer.write(vec![Update::Frontier(Tso(ts), BTreeMap::new())]).unwrap();
    }
    drop(writer);
    let records = look(folder.path()).unwrap();
    let log = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let copy = tempfile::tempdir().unwrap();
    let whole: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        for path in &whole {
            std::fs::copy(path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let log = copy.path().join(log.file_name().unwrap());
        let mut bytes = std::fs::read(&log).unwrap();
        change(&mut bytes);
        std::fs::write(&log, bytes).unwrap();
        Store::look(copy.path())
    };
    assert_eq!(with(&|_| {}).unwrap(), records);
    let error = with(&|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    })
    .unwrap_err();
    assert!(error.message().contains("is damaged"), "{error:?}");
    // The last write never ended: nobody was told that it did.
    let cut = with(&|bytes| drop(bytes.split_off(bytes.len() - 3))).unwrap();
    assert!(cut != records && (cut.is_empty() || records::check(&cut).is_ok()), "{cut:?}");
}

#[test]
fn it_is_shown_to_people_and_programs() {
    let (_folder, records) = full();
    let pipeline = pipeline("orders", "there");
    let checkpoint = Checkpoint::from_records(&records).unwrap();
    let mut shown = Shown::new(&checkpoint, &pipeline.source.mq, &pipeline.target.names(), 0);
    owner(&records, &pipeline, &mut shown).unwrap();
    let text = shown.text();
    for part in [
        "orders, definition ",
        "would be refused: root_path in [source] was here, is there",
        "a_1 at id ",
        "in doubt   a_1_7v0 up to 1970-01-01T00:00:00.000Z (50)",
        "default.c (id 7): 1 partition(s), 0 index(es), adopted",
        "begun",
        "not cleanly, or running",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["frontier"]["tso"], 40);
    assert_eq!(json["collections"][0]["adopted"], true);
}
