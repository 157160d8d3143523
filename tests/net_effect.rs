//! Property tests: what `order`, `coalesce` and `apply`'s lanes make of a random history, brought to a simulated
//! target call by call, must leave what applying the history row by row leaves (invariants 1, 3, 4 and 6).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema};
use migrans::dataflow::credits::Credits;
use migrans::milvus::catalog::{
    Collection, CollectionId, CollectionName, Ddl, Field, Partition, PartitionId, Schema,
};
use migrans::milvus::change::{Body, Change, Message};
use migrans::milvus::channel::{PChannel, VChannel};
use migrans::milvus::proto::schema::DataType as MilvusType;
use migrans::milvus::tso::Tso;
use migrans::ops::CatalogEvent;
use migrans::ops::apply::lanes::{Action, CallId, Lanes, Limits};
use migrans::ops::batch::Batch;
use migrans::ops::coalesce::{Coalesce, Work};
use migrans::ops::order::Order;
use migrans::sinks::Operation;
use migrans::{Error, Kind};
use proptest::prelude::*;

const PARTITIONS: [&str; 3] = ["_default", "p1", "p2"];
const DEADLINE: Duration = Duration::from_secs(1);

/// One request at the source.
#[derive(Clone, Debug)]
enum Request {
    Insert { keys: Vec<i64>, partition: usize },
    Upsert { keys: Vec<i64>, partition: usize },
    Delete { keys: Vec<i64>, partition: Option<usize> },
}

/// Random requests. With `unique`, keys are used as a user does who relies on them: only new ones are inserted.
fn requests(unique: bool) -> impl Strategy<Value = Vec<Request>> {
    let range = if unique { 100i64 } else { 12 };
    let keys = move || {
        prop::collection::btree_set(0..range, 1..6).prop_map(|keys| keys.into_iter().collect::<Vec<_>>())
    };
    let insert =
        (keys(), 0..PARTITIONS.len()).prop_map(|(keys, partition)| Request::Insert { keys, partition });
    let upsert =
        (keys(), 0..PARTITIONS.len()).prop_map(|(keys, partition)| Request::Upsert { keys, partition });
    let delete = (keys(), prop::option::of(0..PARTITIONS.len()))
        .prop_map(|(keys, partition)| Request::Delete { keys, partition });
    prop::collection::vec(prop_oneof![3 => insert, 2 => upsert, 2 => delete], 1..60).prop_map(
        move |mut requests| {
            let mut used: Vec<i64> = Vec::new();
            for request in &mut requests {
                match request {
                    Request::Insert { keys, .. } if unique => {
                        keys.retain(|key| !used.contains(key));
                        used.extend(keys.iter());
                    }
                    Request::Insert { keys, .. } | Request::Upsert { keys, .. } => used.extend(keys.iter()),
                    Request::Delete { .. } => {}
                }
            }
            requests
        },
    )
}

fn collection(partitions: usize) -> Arc<Collection> {
    let field = |id, name: &str, primary_key| Field {
        id,
        name: name.into(),
        data_type: MilvusType::Int64.into(),
        primary_key,
        ..Field::default()
    };
    let partition =
        |(id, name): (i64, &&str)| (PartitionId(id), Partition { name: (*name).into(), created: Tso(1) });
    Arc::new(Collection {
        id: CollectionId(7),
        name: CollectionName { database: "default".into(), collection: "c".into() },
        created: Tso(1),
        schema: Schema {
            description: String::new(),
            dynamic: false,
            fields: vec![field(100, "id", true), field(101, "v", false)],
        },
        shards: 2,
        consistency_level: 0,
        properties: BTreeMap::new(),
        vchannels: vec![vchannel(0), vchannel(1)],
        start_positions: BTreeMap::new(),
        partitions: (0..).zip(&PARTITIONS[..partitions]).map(partition).collect(),
        indexes: BTreeMap::new(),
        load: None,
    })
}

fn vchannel(shard: i64) -> VChannel {
    VChannel(format!("by-dev-rootcoord-dml_{shard}_7v{shard}").into())
}

fn rows(keys: &[i64], value: i64) -> RecordBatch {
    let fields =
        vec![ArrowField::new("id", DataType::Int64, false), ArrowField::new("v", DataType::Int64, false)];
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(keys.to_vec())), Arc::new(Int64Array::from(vec![value; keys.len()]))];
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap()
}

/// The log's messages of a history, a message per shard and kind, in order of time.
fn messages(requests: &[Request], credits: &Arc<Credits>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let time = i64::try_from(index).unwrap() * 10 + 10;
        let ts = Tso(u64::try_from(time).unwrap());
        let mut push = |shard: i64, partition: PartitionId, body: Body| {
            let channel = PChannel(format!("by-dev-rootcoord-dml_{shard}").into());
            let number = u64::try_from(changes.len()).unwrap() + 1;
            changes.push(Change {
                ts,
                sequence: number,
                message_id: i64::try_from(number).unwrap(),
                part: 0,
                vchannel: vchannel(shard),
                collection: CollectionId(7),
                partition,
                body,
                credit: Arc::new(credits.try_take(&channel, 10).unwrap()),
            });
        };
        let id = |partition: usize| PartitionId(i64::try_from(partition).unwrap());
        for shard in 0..2 {
            let of =
                |keys: &Vec<i64>| keys.iter().copied().filter(|key| key % 2 == shard).collect::<Vec<_>>();
            match request {
                Request::Insert { keys, partition } if !of(keys).is_empty() => {
                    push(shard, id(*partition), Body::Insert(rows(&of(keys), time)));
                }
                Request::Upsert { keys, partition } if !of(keys).is_empty() => {
                    // Milvus writes the insert of an upsert before its delete, both with one ts.
                    push(shard, id(*partition), Body::Insert(rows(&of(keys), time)));
                    push(shard, id(*partition), Body::Delete(Arc::new(Int64Array::from(of(keys)))));
                }
                Request::Delete { keys, partition } if !of(keys).is_empty() => {
                    let scope = partition.map_or(PartitionId::ALL, id);
                    push(shard, scope, Body::Delete(Arc::new(Int64Array::from(of(keys)))));
                }
                _ => {}
            }
        }
    }
    changes
}

/// Rows of a target: key, partition, value. The same row may be there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table(Vec<(i64, String, i64)>);

impl Table {
    fn delete(&mut self, keys: &[i64], partition: Option<&str>) {
        self.0.retain(|(key, in_partition, _)| {
            !keys.contains(key) || partition.is_some_and(|partition| partition != in_partition)
        });
    }

    fn insert(&mut self, keys: &[i64], partition: &str, value: i64) {
        self.0.extend(keys.iter().map(|key| (*key, partition.to_owned(), value)));
    }

    /// What the history leaves, request by request.
    fn of(requests: &[Request]) -> Table {
        let mut table = Table::default();
        for (index, request) in requests.iter().enumerate() {
            let time = i64::try_from(index).unwrap() * 10 + 10;
            match request {
                Request::Insert { keys, partition } => table.insert(keys, PARTITIONS[*partition], time),
                Request::Upsert { keys, partition } => {
                    table.delete(keys, Some(PARTITIONS[*partition]));
                    table.insert(keys, PARTITIONS[*partition], time);
                }
                Request::Delete { keys, partition } => {
                    table.delete(keys, partition.map(|partition| PARTITIONS[partition]));
                }
            }
        }
        table.sorted()
    }

    fn apply(&mut self, batch: &Batch) {
        let partition = batch.write.partition.as_deref();
        match &batch.write.operation {
            Operation::Delete(keys) => self.delete(&integers(keys), partition),
            Operation::Messages(..) => panic!("messages were made of rows"),
            Operation::Insert(batches) | Operation::Upsert(batches) => {
                let upsert = matches!(batch.write.operation, Operation::Upsert(_));
                let mut seen = Vec::new();
                for rows in batches {
                    let keys = integers(rows.column(0));
                    let values = integers(rows.column(1));
                    for (key, value) in keys.iter().zip(values) {
                        if upsert {
                            assert!(!seen.contains(key), "an upsert holds the key {key} twice");
                            seen.push(*key);
                            self.delete(&[*key], partition);
                        }
                        self.insert(&[*key], partition.unwrap_or("_default"), value);
                    }
                }
            }
        }
    }

    fn sorted(mut self) -> Table {
        self.0.sort();
        self
    }
}

fn integers(array: &ArrayRef) -> Vec<i64> {
    array.as_primitive::<Int64Type>().values().to_vec()
}

/// How a run of the pipeline goes.
#[derive(Clone, Debug)]
struct Script {
    /// After how many messages a tick comes; ticks may be behind the messages by this many.
    tick_every: usize,
    late_by: usize,
    span_bytes: u64,
    batch_bytes: usize,
    max_calls: usize,
    /// Which of the calls in flight ends next, and how: 0 lost after it was applied, 1 lost before, 2 refused for now,
    /// otherwise well.
    choices: Vec<(u8, u8)>,
    /// After so many calls the process is killed; calls in flight may or may not have been applied.
    killed_after: Option<usize>,
}

fn script(killed: bool) -> impl Strategy<Value = Script> {
    let killed_after = if killed { (1usize..40).prop_map(Some).boxed() } else { Just(None).boxed() };
    (
        1usize..8,
        0usize..4,
        10u64..200,
        8usize..200,
        1usize..5,
        prop::collection::vec(any::<(u8, u8)>(), 64),
        killed_after,
    )
        .prop_map(|(tick_every, late_by, span_bytes, batch_bytes, max_calls, choices, killed_after)| {
            Script { tick_every, late_by, span_bytes, batch_bytes, max_calls, choices, killed_after }
        })
}

/// What a run leaves behind: F, and the recorded `sent_high`.
#[derive(Clone, Debug, Default)]
struct Left {
    frontier: Tso,
    sent_high: HashMap<VChannel, Tso>,
}

/// Runs all messages later than the frontier of `left` against `table`. `faults`: answers get lost.
fn run(
    changes: &[Change],
    collection: &Arc<Collection>,
    script: &Script,
    faults: bool,
    left: Left,
    table: &mut Table,
) -> Left {
    let mut order = Order::new(left.frontier);
    order.learn(CatalogEvent::Known(Arc::clone(collection)));
    let coalesce = Coalesce::new(script.batch_bytes, left.sent_high.clone());
    let limits = Limits { max_calls: script.max_calls, call_deadline: DEADLINE, seed: 1, protected: true };
    let mut lanes = Lanes::new(limits, left.sent_high.clone(), None);
    let mut uppers: Vec<Tso> = Vec::new();
    let mut disk = left;
    let mut now = Instant::now();
    let mut unix = 1_000_000u64;
    let mut flying: BTreeMap<CallId, Batch> = BTreeMap::new();
    let mut choices = script.choices.iter().cycle();
    let mut calls = 0;

    let todo: Vec<&Change> = changes.iter().filter(|change| change.ts > disk.frontier).collect();
    let mut fed = 0;
    loop {
        if fed < todo.len() {
            let until = (fed + script.tick_every).min(todo.len());
            todo[fed..until].iter().for_each(|change| order.push((*change).clone()));
            fed = until;
            // A tick promises what has been fed up to a few messages ago, in whole requests.
            let behind = until.saturating_sub(script.late_by);
            let tick = if fed == todo.len() { Tso(u64::MAX) } else { todo[behind].ts.pred() };
            while tick > order.lower() {
                let span = order.release(tick, script.span_bytes);
                let work = coalesce.span(span).unwrap();
                uppers.push(work.upper);
                lanes.push(work);
            }
        }
        for action in lanes.next(now, unix) {
            match action {
                Action::Record(highs, until) => {
                    for (vchannel, high) in &highs {
                        let recorded = disk.sent_high.entry(vchannel.clone()).or_default();
                        assert!(high >= recorded, "sent_high goes back");
                        *recorded = *high;
                    }
                    lanes.recorded(highs, until);
                }
                Action::Send(id, batch) => {
                    assert!(batch.high <= disk.sent_high[&batch.vchannel], "INVARIANT 3");
                    for other in flying.values() {
                        assert!(!other.conflicts(&batch), "calls in flight touch a common key");
                    }
                    calls += 1;
                    flying.insert(id, batch);
                }
                Action::Apply(..) => unreachable!("no DDL in this test"),
            }
        }
        let first = usize::try_from(lanes.first_incomplete()).unwrap();
        if let Some(upper) = first.checked_sub(1).and_then(|last| uppers.get(last)) {
            assert!(*upper >= disk.frontier, "INVARIANT 2");
            disk.frontier = *upper;
        }
        if script.killed_after.is_some_and(|after| calls >= after) {
            for (batch, (applied, _)) in flying.values().zip(choices) {
                if applied % 2 == 0 {
                    table.apply(batch);
                }
            }
            return disk;
        }
        if let Some((pick, how)) = choices.next()
            && !flying.is_empty()
        {
            let id = *flying.keys().nth(usize::from(*pick) % flying.len()).unwrap();
            let batch = flying.remove(&id).unwrap();
            let result = match how % 8 {
                0 if faults => {
                    table.apply(&batch);
                    Err(Error::new(Kind::InDoubt, "the answer was lost"))
                }
                1 if faults => Err(Error::new(Kind::InDoubt, "the call was lost")),
                2 if faults => Err(Error::new(Kind::RateLimited, "slow down")),
                _ => {
                    table.apply(&batch);
                    Ok(())
                }
            };
            let outcome = lanes.ended(id, result, now);
            assert!(outcome.fatal.is_none(), "{outcome:?}");
        } else if fed == todo.len() && lanes.is_idle() {
            disk.frontier = Tso(u64::MAX);
            return disk;
        } else if flying.is_empty() {
            now += DEADLINE;
            unix += 1_000;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn an_undisturbed_run_leaves_what_the_history_leaves(
        requests in requests(false), script in script(false), partitions in 1usize..=3,
    ) {
        let requests = within(requests, partitions);
        let credits = Credits::new(u64::MAX);
        let mut table = Table::default();
        run(&messages(&requests, &credits), &collection(partitions), &script, false, Left::default(), &mut table);
        prop_assert_eq!(table.sorted(), Table::of(&requests));
        prop_assert_eq!(credits.held(), 0, "credit was lost");
    }

    #[test]
    fn lost_answers_change_nothing_where_keys_are_unique(requests in requests(true), script in script(false)) {
        let requests = within(requests, 1);
        let credits = Credits::new(u64::MAX);
        let mut table = Table::default();
        run(&messages(&requests, &credits), &collection(1), &script, true, Left::default(), &mut table);
        prop_assert_eq!(table.sorted(), Table::of(&requests));
    }

    #[test]
    fn kills_change_nothing_where_keys_are_unique(
        requests in requests(true), kills in prop::collection::vec(script(true), 1..4), last in script(false),
    ) {
        let requests = within(requests, 1);
        let credits = Credits::new(u64::MAX);
        let changes = messages(&requests, &credits);
        let mut table = Table::default();
        let mut left = Left::default();
        for script in &kills {
            left = run(&changes, &collection(1), script, true, left, &mut table);
        }
        run(&changes, &collection(1), &last, true, left, &mut table);
        prop_assert_eq!(table.sorted(), Table::of(&requests));
    }
}

/// The same requests in a collection of fewer partitions.
fn within(requests: Vec<Request>, partitions: usize) -> Vec<Request> {
    let fit = |partition: usize| partition % partitions;
    let requests = requests.into_iter().map(|request| match request {
        Request::Insert { keys, partition } => Request::Insert { keys, partition: fit(partition) },
        Request::Upsert { keys, partition } => Request::Upsert { keys, partition: fit(partition) },
        Request::Delete { keys, partition } => Request::Delete { keys, partition: partition.map(fit) },
    });
    requests.collect()
}

#[test]
fn a_dropped_collection_takes_its_later_rows_with_it_and_its_successor_keeps_its_own() {
    let credits = Credits::new(u64::MAX);
    let old = collection(1);
    let mut order = Order::new(Tso::ZERO);
    order.learn(CatalogEvent::Known(Arc::clone(&old)));
    let changes = messages(
        &[Request::Insert { keys: vec![2], partition: 0 }, Request::Insert { keys: vec![4], partition: 0 }],
        &credits,
    );
    changes.into_iter().for_each(|change| order.push(change));
    let drop = Ddl::DropCollection { id: old.id, name: old.name.clone() };
    order.learn(CatalogEvent::Step { ts: Tso(15), ddl: drop });
    let mut new = (*old).clone();
    new.id = CollectionId(8);
    order.learn(CatalogEvent::Step { ts: Tso(16), ddl: Ddl::CreateCollection(Arc::new(new)) });
    let work = Coalesce::new(1000, HashMap::new()).span(order.release(Tso(100), 1000)).unwrap();
    let mut lanes = Lanes::new(
        Limits { max_calls: 4, call_deadline: DEADLINE, seed: 1, protected: true },
        HashMap::new(),
        None,
    );
    lanes.push(work);
    let now = Instant::now();
    let mut sent = Vec::new();
    while !lanes.is_idle() {
        let actions = lanes.next(now, 1);
        assert!(!actions.is_empty(), "stuck after {sent:?}");
        for action in actions {
            match action {
                Action::Record(highs, until) => lanes.recorded(highs, until),
                Action::Send(id, batch) => {
                    sent.push(format!("{} rows", batch.rows));
                    lanes.ended(id, Ok(()), now);
                }
                Action::Apply(id, ddl) => {
                    sent.push(migrans::ops::apply::describe(&ddl));
                    lanes.ended(id, Ok(()), now);
                }
            }
        }
    }
    assert_eq!(sent, ["1 rows", "drop collection default.c", "create collection default.c"]);
    assert_eq!(credits.held(), 0);
}

/// INVARIANT 1: a row is sent only after every step before it.
#[test]
fn rows_wait_for_a_step_that_is_under_way() {
    let credits = Credits::new(u64::MAX);
    let table = collection(1);
    let mut order = Order::new(Tso::ZERO);
    order.learn(CatalogEvent::Step { ts: Tso(1), ddl: Ddl::CreateCollection(Arc::clone(&table)) });
    let changes = messages(&[Request::Insert { keys: vec![2], partition: 0 }], &credits);
    changes.into_iter().for_each(|change| order.push(change));
    let work = Coalesce::new(1000, HashMap::new()).span(order.release(Tso(100), 1000)).unwrap();
    let limits = Limits { max_calls: 4, call_deadline: DEADLINE, seed: 1, protected: false };
    let mut lanes = Lanes::new(limits, HashMap::new(), None);
    lanes.push(work);
    let now = Instant::now();
    let first = lanes.next(now, 1);
    let [Action::Apply(id, _)] = first[..] else { panic!("{first:?}") };
    assert!(lanes.next(now, 1).is_empty(), "the step has not ended");
    lanes.ended(id, Ok(()), now);
    assert!(matches!(lanes.next(now, 1)[..], [Action::Send(..)]));
}

#[test]
fn messages_for_a_standby_stay_as_they_are_and_in_order() {
    let credits = Credits::new(1 << 20);
    let requests = [
        Request::Insert { keys: vec![2, 4, 1], partition: 0 },
        Request::Upsert { keys: vec![2], partition: 0 },
        Request::Delete { keys: vec![2, 1], partition: None },
        Request::Insert { keys: vec![2], partition: 1 },
    ];
    let mut order = Order::new(Tso(0));
    order.learn(CatalogEvent::Known(collection(2)));
    let mut sent: BTreeMap<VChannel, Vec<Vec<u8>>> = BTreeMap::new();
    let mut changes = messages(&requests, &credits);
    for change in &mut changes {
        let is_insert = matches!(change.body, Body::Insert(_));
        let payload = Vec::from(format!("{} {}", change.ts.0, if is_insert { "insert" } else { "delete" }));
        sent.entry(change.vchannel.clone()).or_default().push(payload.clone());
        change.body = Body::Message(Message { is_insert, rows: 1, payload: payload.into() });
    }
    // An insert stands before the delete of its upsert in the log, and after it for the standby.
    for payloads in sent.values_mut() {
        payloads.sort();
    }
    for change in changes.into_iter().rev() {
        order.push(change);
    }
    let span = order.release(Tso(1000), u64::MAX);
    let work = Coalesce::new(20, HashMap::from([(vchannel(0), Tso(25))])).span(span).unwrap().work;
    let batches: Vec<Batch> = work
        .into_iter()
        .map(|work| match work {
            Work::Batch(batch) => *batch,
            Work::Ddl(ddl) => panic!("{ddl:?}"),
        })
        .collect();
    let mut got: BTreeMap<VChannel, Vec<Vec<u8>>> = BTreeMap::new();
    for batch in &batches {
        let Operation::Messages(shard, messages) = &batch.write.operation else { panic!("{batch:?}") };
        assert!(batch.bytes <= 20 && batch.high == messages.last().unwrap().ts, "{batch:?}");
        let payloads = messages.iter().map(|message| message.message.payload.to_vec());
        got.entry(shard.clone()).or_default().extend(payloads);
        for other in &batches {
            assert_eq!(
                batch.conflicts(other),
                batch.vchannel == other.vchannel,
                "those of one shard go one by one"
            );
        }
    }
    assert_eq!(got, sent);
    assert!(batches.len() >= 4, "{}", batches.len());
}
