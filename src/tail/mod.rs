//! `migrans tail`: a source's messages as they pass, or how many of each kind there are.
//!
//! It reads the same queues by the same sources as a pipeline, without a dataflow behind them: each message is printed
//! in the order of its topic, and topics are read side by side. Nothing is kept, and nothing is written to the source.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use tokio::runtime::Runtime;

use self::line::{Line, Read};
use self::names::Names;
use crate::dataflow::channels::Channels;
use crate::dataflow::credits::Credits;
use crate::dataflow::run::Until;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::Collection;
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::pipeline::{MqConfig, Pipeline, Select, StartAt};
use crate::sources::catalog::CatalogSource;
use crate::sources::{self, Context, Delivery, LogSource, Start};

mod count;
mod line;
mod names;

/// It looks around this often even if nothing wakes it.
const PARK: Duration = Duration::from_millis(50);
/// New collections are looked for this often.
const LOOK: Duration = Duration::from_secs(2);

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these channels, all that is on them; empty: those of the selected collections.
    pub channels: Vec<PChannel>,
    /// Only collections that match; `None`: what the pipeline file selects, or all on the `channels` named.
    pub collections: Option<Select>,
    /// Where to begin.
    pub from: StartAt,
    /// When to end.
    pub until: Until,
    /// One JSON object a line.
    pub json: bool,
    /// Show ticks too.
    pub ticks: bool,
    /// Show so many keys of a message at most.
    pub keys: usize,
    /// Only count.
    pub count: bool,
}

/// Tails the source of `pipeline` until told to stop.
pub fn tail(pipeline: &Pipeline, options: &Options, stop: &Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Internal, "can't start the runtime for etcd").caused_by(cause))?;
    let catalog = runtime.block_on(CatalogSource::connect(&pipeline.source, |_| true))?;
    let credits = Credits::new(pipeline.delivery.memory);
    let channels = Arc::new(Channels::default());
    let scratch = scratch();
    let mut context = Context::new(credits, Arc::clone(&channels), Arc::clone(stop), scratch.clone());
    context.every_message = true;
    context.every_tick = options.ticks && !options.count;
    let thread = std::thread::current();
    context.wake = Arc::new(move || thread.unpark());
    let source = sources::connect(&pipeline.source.mq, context)?;
    let tail = Tail {
        options,
        mq: &pipeline.source.mq,
        select: options
            .collections
            .clone()
            .or_else(|| options.channels.is_empty().then(|| pipeline.select.clone())),
        runtime,
        catalog,
        source,
        channels,
        names: Names::default(),
        open: BTreeMap::new(),
        looked: None,
        from: match options.from {
            StartAt::Latest => StartAt::After(Tso::now()),
            other => other,
        },
    };
    let result = tail.run(stop);
    stop.store(true, Ordering::Release);
    // Left over at worst in the system's folder for temporary files.
    drop(std::fs::remove_dir_all(scratch));
    result
}

fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("migrans-tail-{}", std::process::id()))
}

struct Tail<'o> {
    options: &'o Options,
    mq: &'o MqConfig,
    select: Option<Select>,
    runtime: Runtime,
    catalog: CatalogSource,
    source: Box<dyn LogSource>,
    channels: Arc<Channels>,
    names: Names,
    open: BTreeMap<PChannel, Open>,
    looked: Option<Instant>,
    from: StartAt,
}

struct Open {
    queue: Receiver<Delivery>,
    caught_up: bool,
    tick: Tso,
}

impl Tail<'_> {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let mut read = Read::new();
        let mut counts = count::Counts::default();
        // Standard output line by line is for people; a pipe gets its lines by the block, and never late.
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut output = Output::default();
        while !stop.load(Ordering::Acquire) {
            self.look()?;
            self.channels.tell();
            let mut moved = false;
            let names: Vec<PChannel> = self.open.keys().cloned().collect();
            for name in names {
                while let Some(delivery) = self.take(&name)? {
                    moved = true;
                    let Some(messages) = delivery else { continue };
                    for envelope in messages {
                        let mut line = read.line(&name, envelope, self.options.keys)?;
                        if let (Some(open), Some(tick)) = (self.open.get_mut(&name), line.tick()) {
                            open.tick = tick.max(open.tick);
                        }
                        if !self.is_wanted(&mut line)? {
                            continue;
                        }
                        if self.options.count {
                            counts.add(&line);
                        } else {
                            output.result = self.print(&mut out, &line);
                        }
                        if output.is_over()? {
                            return Ok(());
                        }
                    }
                }
            }
            if self.is_done() {
                break;
            }
            if !moved {
                output.result = out.flush();
                if output.is_over()? {
                    return Ok(());
                }
                std::thread::park_timeout(PARK);
            }
        }
        if self.options.count {
            output.result = counts.print(&mut out, self.options.json);
        }
        output.result = output.result.and_then(|()| out.flush());
        output.is_over().map(|_| ())
    }

    fn print(&self, out: &mut impl Write, line: &Line) -> io::Result<()> {
        let id = sources::id(self.mq, &line.channel, &line.position);
        if self.options.json { line.write_json(out, &id) } else { line.write_text(out, &id) }
    }

    /// Takes from a channel: `None` if nothing is there, otherwise messages or a notice.
    #[allow(clippy::option_option)]
    fn take(&mut self, name: &PChannel) -> Result<Option<Option<Vec<sources::Envelope>>>> {
        let Some(open) = self.open.get_mut(name) else { return Ok(None) };
        match open.queue.try_recv() {
            Ok(Delivery::Messages(messages)) => Ok(Some(Some(messages))),
            Ok(Delivery::CaughtUp) => {
                open.caught_up = true;
                Ok(Some(None))
            }
            Ok(Delivery::Failed(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(Error::new(Kind::Internal, format!("the reader of {name} has ended")))
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.options.until {
            Until::Forever => false,
            Until::CaughtUp => self.open.values().all(|open| open.caught_up),
            Until::Time(tso) => self.open.values().all(|open| open.tick >= tso),
        }
    }

    fn is_wanted(&mut self, line: &mut Line) -> Result<bool> {
        if line.ts() <= self.floor() || matches!(self.options.until, Until::Time(end) if line.ts() > end) {
            return Ok(false);
        }
        let Some(collection) = line.collection else {
            return Ok(line.tick().is_none() || self.options.ticks && !self.options.count);
        };
        if !self.names.knows(collection) {
            self.refresh()?;
        }
        self.names.complete(line);
        Ok(match (&self.select, &line.name) {
            (None, _) => true,
            (Some(select), Some(name)) => select.matches(name),
            // Dropped by now: whether it would have been selected can't be told.
            (Some(_), None) => !self.options.channels.is_empty(),
        })
    }

    fn floor(&self) -> Tso {
        if let StartAt::After(tso) = self.from { tso } else { Tso::ZERO }
    }

    /// Looks now and then for collections, and opens their channels.
    fn look(&mut self) -> Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        let first = self.looked.is_none();
        self.refresh()?;
        let select = self.select.clone();
        let wanted =
            |collection: &&Collection| select.as_ref().is_none_or(|select| select.matches(&collection.name));
        let mut starts: BTreeMap<PChannel, Start> = BTreeMap::new();
        let mut collections: Vec<&Collection> = self.names.collections().filter(wanted).collect();
        collections.sort_by_key(|collection| collection.created);
        for collection in collections {
            for vchannel in &collection.vchannels {
                let channel = vchannel.pchannel();
                if self.options.channels.is_empty() || self.options.channels.contains(&channel) {
                    let start = self.start(collection, &channel, first);
                    starts.entry(channel).or_insert(start);
                }
            }
        }
        for channel in &self.options.channels {
            let start = match self.from {
                StartAt::After(tso) => Start::Near(tso),
                _ => Start::Earliest,
            };
            starts.entry(channel.clone()).or_insert(start);
        }
        if first && starts.is_empty() {
            let known: BTreeSet<String> =
                self.names.collections().map(|collection| collection.name.to_string()).collect();
            tracing::warn!(
                "no collection is selected yet; the source has: {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            );
        }
        for (channel, start) in starts {
            if !self.open.contains_key(&channel) {
                self.channels.open(&channel);
                let queue = self.source.open(&channel, start);
                self.open.insert(channel, Open { queue, caught_up: false, tick: Tso::ZERO });
            }
        }
        Ok(())
    }

    fn start(&self, collection: &Collection, channel: &PChannel, first: bool) -> Start {
        match self.from {
            StartAt::After(tso) if first || collection.created <= tso => Start::Near(tso),
            StartAt::Earliest if first => Start::Earliest,
            _ => match collection.start_positions.get(channel) {
                Some(position) => Start::At(position.clone()),
                None => Start::Earliest,
            },
        }
    }

    fn refresh(&mut self) -> Result<()> {
        self.looked = Some(Instant::now());
        let read = self.runtime.block_on(self.catalog.read())?;
        self.names.set(read.catalog);
        Ok(())
    }
}

/// Where lines go: whoever reads them may have seen enough.
struct Output {
    result: io::Result<()>,
}

impl Default for Output {
    fn default() -> Output {
        Output { result: Ok(()) }
    }
}

impl Output {
    /// Whether nobody reads any more, which is no error.
    fn is_over(&mut self) -> Result<bool> {
        match std::mem::replace(&mut self.result, Ok(())) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
            Err(error) => Err(Error::new(Kind::Internal, "can't write to standard output").caused_by(error)),
        }
    }
}
