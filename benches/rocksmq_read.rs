//! How fast a backlog is read from a RocksMQ, beside plain iteration of the same RocksDB in the same run.
//!
//!     cargo bench --bench rocksmq_read
//!
//! Writes a RocksMQ in Milvus' layout into a temporary folder (`TMPDIR`): 16 topics with `MEGABYTES` (environment,
//! default 500) of inserts and two ticks for each, for several insert sizes, and one of ticks alone. Reads it with a
//! consumer that drops what it gets, `ROUNDS` times (default 7), from the page cache. Prints medians and spreads.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Select, TryRecvError};
use migrans::dataflow::credits::Credits;
use migrans::milvus::channel::PChannel;
use migrans::milvus::proto::common::MsgBase;
use migrans::milvus::proto::msg::{InsertRequest, TimeTickMsg};
use migrans::pipeline::RocksmqConfig;
use migrans::sources::rocksmq::RocksMq;
use migrans::sources::{Context, Delivery, EnvelopeKind, LogSource, Start};
use prost::Message;
use rocksdb::{BlockBasedOptions, ChecksumType, ColumnFamilyDescriptor, DB, DBCompressionType, Options};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOPICS: usize = 16;
const FIRST_ID: i64 = 446_000_000_000_000_000;

fn main() -> Result<()> {
    let megabytes: usize = setting("MEGABYTES", 500)?;
    let rounds: usize = setting("ROUNDS", 7)?;
    println!("{TOPICS} topics, {rounds} rounds; medians (least to most)\n");
    println!(
        "{:>12} {:>10} {:>26} {:>26} {:>7} {:>9}",
        "insert", "messages", "plain iteration", "source", "ratio", "CPU ratio"
    );
    for size in [2 << 20, 256 << 10, 16 << 10] {
        let folder = tempfile::tempdir()?;
        let count = (megabytes << 20) / size;
        write(&folder.path().join("rdb_data"), count, size)?;
        compare(folder.path(), rounds, &format!("{} KiB", size >> 10), "MB/s", 1e6)?;
    }
    let folder = tempfile::tempdir()?;
    write(&folder.path().join("rdb_data"), 500_000, 0)?;
    compare(folder.path(), rounds, "only ticks", "k msg/s", 0.0)?;
    follow()
}

/// How long a message takes from being written to its consumer, and what following costs when there are only ticks.
fn follow() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rdb_data");
    write(&path, 1000, 64 << 10)?;
    let db = DB::open_cf(&Options::default(), &path, ["default", "properties"])?;
    let scratch = tempfile::tempdir()?;
    let (source, _context) = open(&path, scratch.path())?;
    let queues: Vec<_> =
        (0..TOPICS).map(|topic| source.open(&PChannel(name(topic).into()), Start::Earliest)).collect();
    for queue in &queues {
        while !matches!(queue.recv_timeout(Duration::from_secs(30))?, Delivery::CaughtUp) {}
    }
    let tick = |timestamp| TimeTickMsg { base: base(1200, timestamp) }.encode_to_vec();
    let mut id = FIRST_ID * 2;
    let mut latencies = Vec::new();
    for round in 0..500u64 {
        // Out of step with any polling.
        std::thread::sleep(Duration::from_micros(7000 + (round * 7919) % 10_000));
        let topic = usize::try_from(round)? % TOPICS;
        id += 1;
        let written = Instant::now();
        db.put(format!("{}/{id}", name(topic)), tick(round))?;
        queues[topic].recv_timeout(Duration::from_secs(30))?;
        latencies.push(written.elapsed());
    }
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "\nfollowing: written to handed over {:.1} ms (median), {:.1} (99 %), {:.1} (most)",
        at(50),
        at(99),
        at(100)
    );
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    for round in 0..100 {
        for topic in 0..TOPICS {
            id += 1;
            db.put(format!("{}/{id}", name(topic)), tick(round))?;
        }
        std::thread::sleep(Duration::from_millis(200));
        for queue in &queues {
            while queue.try_recv().is_ok() {}
        }
    }
    let share = (cpu_seconds() - cpu_before) / started.elapsed().as_secs_f64();
    println!(
        "idle: {TOPICS} topics with 5 ticks/s take {:.2} % of a core, writing them included",
        share * 100.0
    );
    Ok(())
}

fn open(path: &Path, scratch: &Path) -> Result<(RocksMq, Context)> {
    let context = Context::new(Credits::new(256 << 20), Arc::default(), Arc::default(), scratch.to_owned());
    Ok((RocksMq::connect(&RocksmqConfig { path: path.to_owned() }, context.clone())?, context))
}

fn setting(name: &str, default: usize) -> Result<usize> {
    Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
}

/// `unit` 0 counts thousands of messages, otherwise bytes in that unit.
fn compare(folder: &Path, rounds: usize, name: &str, unit_name: &str, unit: f64) -> Result<()> {
    let path = folder.join("rdb_data");
    let (mut rates, mut work) = ([Vec::new(), Vec::new()], [0.0, 0.0]);
    let mut messages = 0;
    for _ in 0..rounds {
        for (index, read) in [read_plain as fn(&Path) -> Result<Amount>, read_source].into_iter().enumerate()
        {
            let (started, cpu_before) = (Instant::now(), cpu_seconds());
            let amount = read(&path)?;
            let seconds = started.elapsed().as_secs_f64();
            work[index] += cpu_seconds() - cpu_before;
            messages = messages.max(amount.messages);
            // The source tells runs of ticks by one, so what it went through is what there is.
            let done = if unit == 0.0 { messages as f64 / 1e3 } else { amount.bytes as f64 / unit };
            rates[index].push(done / seconds);
        }
    }
    let [plain, source] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        (rates[rates.len() / 2], rates[0], rates[rates.len() - 1])
    });
    let show =
        |(median, least, most): (f64, f64, f64)| format!("{median:.0} ({least:.0} to {most:.0}) {unit_name}");
    println!(
        "{name:>12} {messages:>10} {:>26} {:>26} {:>7.2} {:>9.2}",
        show(plain),
        show(source),
        source.0 / plain.0,
        work[1] / work[0]
    );
    Ok(())
}

/// CPU time of this process so far: unlike the clock it tells something on a machine that is busy with other things.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in hundredths of a second; the name in field 2 may have spaces, but ends with a parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

struct Amount {
    messages: usize,
    bytes: usize,
}

fn read_plain(path: &Path) -> Result<Amount> {
    let mut options = Options::default();
    options.set_max_open_files(-1);
    let db = DB::open_cf_for_read_only(&options, path, ["default", "properties"], false)?;
    let mut scan = rocksdb::ReadOptions::default();
    scan.fill_cache(false);
    let mut iterator = db.raw_iterator_opt(scan);
    iterator.seek_to_first();
    let mut amount = Amount { messages: 0, bytes: 0 };
    while let Some((_, value)) = iterator.item() {
        amount.messages += 1;
        amount.bytes += std::hint::black_box(value).len();
        iterator.next();
    }
    iterator.status()?;
    Ok(amount)
}

fn read_source(path: &Path) -> Result<Amount> {
    let scratch = tempfile::tempdir()?;
    let (source, context) = open(path, scratch.path())?;
    let mut queues: Vec<_> =
        (0..TOPICS).map(|topic| source.open(&PChannel(name(topic).into()), Start::Earliest)).collect();
    let mut amount = Amount { messages: 0, bytes: 0 };
    while !queues.is_empty() {
        let mut failure = None;
        queues.retain(|queue| {
            loop {
                match queue.try_recv() {
                    Ok(Delivery::Messages(envelopes)) => {
                        amount.messages += envelopes.len();
                        for envelope in envelopes {
                            if let EnvelopeKind::Insert(payload, _) = &envelope.kind {
                                amount.bytes += payload.len();
                            }
                        }
                    }
                    Ok(Delivery::CaughtUp) => return false,
                    Ok(Delivery::Failed(error)) => {
                        failure = Some(error);
                        return false;
                    }
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        if !queues.is_empty() {
            let mut select = Select::new();
            for queue in &queues {
                select.recv(queue);
            }
            let _ = select.ready_timeout(Duration::from_millis(100));
        }
    }
    context.stop.store(true, Ordering::Relaxed);
    Ok(amount)
}

fn name(topic: usize) -> String {
    format!("by-dev-rootcoord-dml_{topic}")
}

/// Writes `count` inserts of `size` bytes (none if 0), each followed by two ticks, over all topics.
fn write(path: &Path, count: usize, size: usize) -> Result<()> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_num_levels(5);
    let (none, zstd) = (DBCompressionType::None, DBCompressionType::Zstd);
    options.set_compression_per_level(&[none, none, zstd, zstd, zstd]);
    // As RocksDB 6.29 does, which Milvus uses.
    let mut table = BlockBasedOptions::default();
    table.set_checksum_type(ChecksumType::CRC32c);
    options.set_block_based_table_factory(&table);
    let families = ["default", "properties"].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    let db = DB::open_cf_descriptors(&options, path, families)?;
    let mut id = FIRST_ID;
    let mut put = |topic: usize, payload: Vec<u8>| {
        id += 1;
        db.put(format!("{}/{id}", name(topic)), payload)
    };
    // Bytes that do not compress, as vectors don't.
    let mut state = 1u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from(state >> 58).unwrap_or(0))
    })
    .take(size)
    .collect();
    for index in 0..count {
        let topic = index % TOPICS;
        let timestamp = u64::try_from(index)? << 18;
        if size > 0 {
            let collection_name = noise.clone();
            put(
                topic,
                InsertRequest { base: base(400, timestamp), collection_name, ..Default::default() }
                    .encode_to_vec(),
            )?;
        }
        for later in 1..3 {
            put(topic, TimeTickMsg { base: base(1200, timestamp + later) }.encode_to_vec())?;
        }
    }
    Ok(())
}

fn base(msg_type: i32, timestamp: u64) -> Option<MsgBase> {
    Some(MsgBase { msg_type, msg_id: 1, timestamp, source_id: 5, ..Default::default() })
}
