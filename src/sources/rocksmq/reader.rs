//! The thread that owns the secondary and serves all channels.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use super::channel::{Channel, Stop, View};
use super::pace::{POLL, Pace};
use super::scans::Scans;
use super::store::{CaughtUp, Mark, Store};
use super::watch::Watch;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::sources::outlet::Outlet;
use crate::sources::{Context, Start};

/// How often it is read although it does not look changed.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Within this time messages can't have been written, moved to a table file *and* trimmed: Milvus would have to fill a
/// page of 64 MiB with them, consume it, and come by with its retention, which it does every 10 minutes.
const LAPSE: Duration = Duration::from_millis(1200);
/// Payload bytes that are put into queues before the consumer is woken in the middle of a round.
const WAKE_BYTES: usize = 512 << 10;
/// Waiting for room in queues: first and longest.
const ROOM_WAIT: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(5));
/// Opening the store again after an error: first and longest pause.
const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The pace of log lines while opening fails.
const REOPEN_LOG: Duration = Duration::from_secs(15);
/// Read errors of one message, each followed by opening the store again, after which its channel fails.
const READ_ATTEMPTS: u32 = 6;

/// What the handle asks of the thread.
pub(super) enum Command {
    Open { start: Start, outlet: Box<Outlet> },
    Close { channel: PChannel },
}

pub(super) struct Reader {
    path: PathBuf,
    scratch: PathBuf,
    context: Context,
    commands: Receiver<Command>,
    channels: Vec<Channel>,
    opened_count: u64,
    view: View,
    /// When the store was last looked at and all that was in it was visible.
    looked: Option<Instant>,
    reopen_wait: Duration,
    pace: Pace,
}

/// Why the thread leaves a store.
enum Leave {
    /// The pipeline stops.
    Stopped,
    /// Milvus replaced its MANIFEST.
    Replaced,
    Failed(Error),
}

/// What a look at the store came to.
enum Look {
    Nothing,
    NewView,
    Replaced,
}

/// What a round over the channels came to.
#[derive(Default)]
struct Round {
    /// The time to look at the store again came first.
    unfinished: bool,
    /// A channel waits for credit.
    credit_short: bool,
    /// A channel waits for its consumer.
    queue_full: bool,
    moved: bool,
    /// Payload bytes that were handed over: ticks have none.
    bytes: usize,
}

impl Round {
    /// Whether there was more to do than to pass on ticks.
    fn is_work(&self) -> bool {
        self.unfinished || self.credit_short || self.queue_full || self.bytes > 0
    }
}

impl Reader {
    pub(super) fn new(
        path: PathBuf,
        scratch: PathBuf,
        context: Context,
        commands: Receiver<Command>,
    ) -> Reader {
        Reader {
            path,
            scratch,
            context,
            commands,
            channels: Vec::new(),
            opened_count: 0,
            view: View { number: 0, memory_from: 0, taken: Instant::now(), watched: false },
            looked: None,
            reopen_wait: REOPEN_WAIT.0,
            pace: Pace::new(),
        }
    }

    /// Serves until the pipeline stops.
    pub(super) fn run(mut self, store: Store) {
        let mut store = store;
        loop {
            match self.follow(&store) {
                Leave::Stopped => return,
                Leave::Replaced => {
                    tracing::info!(path = %self.path.display(), "Milvus was started anew: its RocksMQ is opened again");
                }
                Leave::Failed(error) => {
                    tracing::warn!(
                        path = %self.path.display(), error = %error.report(), pause = ?self.reopen_wait,
                        "reading RocksMQ failed: it is opened again, every channel goes on from its position"
                    );
                    if self.pause() {
                        return;
                    }
                }
            }
            drop(store);
            match self.reopen() {
                Some(opened) => store = opened,
                None => return,
            }
        }
    }

    /// Opens the store until that succeeds; `None` if the pipeline stops.
    fn reopen(&mut self) -> Option<Store> {
        let mut told: Option<Instant> = None;
        loop {
            match Store::open(&self.path, &self.scratch) {
                Ok(store) => return Some(store),
                // A start of Milvus replaces files for a moment; it is worth a word only if it lasts.
                Err(error) if self.reopen_wait > REOPEN_WAIT.0 => {
                    if told.is_none_or(|told| told.elapsed() > REOPEN_LOG) {
                        tracing::warn!(error = %error.report(), "RocksMQ can't be opened, trying again until it can");
                        told = Some(Instant::now());
                    }
                }
                Err(_) => {}
            }
            if self.pause() {
                return None;
            }
        }
    }

    /// Backs off; `true` if the pipeline stops.
    fn pause(&mut self) -> bool {
        let until = Instant::now() + self.reopen_wait;
        self.reopen_wait = (self.reopen_wait * 2).min(REOPEN_WAIT.1);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.stopping() || !self.take_commands() {
                return true;
            }
            // The handle unparks this thread when it asks for something.
            std::thread::park_timeout(left.min(Duration::from_millis(50)));
        }
    }

    fn stopping(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }

    /// Reads one open store for as long as that goes well.
    fn follow(&mut self, store: &Store) -> Leave {
        let mut watch = Watch::new(&self.path);
        let mut scans = Scans::new(store);
        let mut files: Option<Files> = None;
        let mut polled: Option<Instant> = None;
        let mut room_wait = ROOM_WAIT.0;
        // It may be another store than before.
        self.looked = None;
        for channel in &mut self.channels {
            channel.tail = None;
        }
        loop {
            if self.stopping() || !self.take_commands() {
                return Leave::Stopped;
            }
            let interval = self.interval();
            if polled.is_none_or(|polled| polled.elapsed() >= interval) {
                match self.look(store, &mut watch, &mut files) {
                    Ok(Look::NewView) => {
                        if let Err(error) = scans.start_view(&mut self.channels) {
                            return Leave::Failed(error);
                        }
                    }
                    Ok(Look::Nothing) => {}
                    Ok(Look::Replaced) => return Leave::Replaced,
                    Err(error) => return Leave::Failed(error),
                }
                polled = Some(Instant::now());
            }
            let next_poll = polled.map_or_else(Instant::now, |polled| polled + interval);
            let round = match self.round(&mut scans, next_poll) {
                Ok(round) => round,
                Err(error) => return Leave::Failed(error),
            };
            if round.moved {
                room_wait = ROOM_WAIT.0;
            }
            if round.is_work() {
                self.pace.busy(Instant::now());
            }
            if round.unfinished {
                continue;
            }
            let rest = next_poll.saturating_duration_since(Instant::now());
            if round.queue_full {
                // The consumer does not say when it has made room.
                std::thread::park_timeout(rest.min(room_wait));
                room_wait = (room_wait * 2).min(ROOM_WAIT.1);
            } else if round.credit_short {
                self.context.credits.wait(rest.min(ROOM_WAIT.1));
            } else {
                std::thread::park_timeout(rest);
            }
        }
    }

    /// The time between two looks: short also while a channel needs one.
    fn interval(&self) -> Duration {
        if self.channels.iter().any(|channel| channel.needs_view_after(self.view)) {
            return POLL;
        }
        self.pace.interval(Instant::now())
    }

    /// Makes visible what is new, if anything seems to be.
    fn look(&mut self, store: &Store, watch: &mut Watch, files: &mut Option<Files>) -> Result<Look> {
        let now = Instant::now();
        let due = files.is_none()
            || now - self.view.taken >= HEARTBEAT
            || self.channels.iter().any(|channel| channel.needs_view_after(self.view));
        if !watch.changed() && !due {
            self.looked = Some(now);
            return Ok(Look::Nothing);
        }
        let log = watch.log_number();
        let mark = match store.catch_up()? {
            CaughtUp::Complete(mark) => mark,
            CaughtUp::Replaced => return Ok(Look::Replaced),
        };
        let number = self.view.number + 1;
        let memory_from = match files {
            Some(files) if files.mark == mark => self.view.memory_from,
            Some(files) if files.log.is_some() && files.log == store.log_number() => files.log_from,
            _ => number,
        };
        let log_from = files.as_ref().filter(|files| files.log == log).map_or(number, |files| files.log_from);
        *files = Some(Files { mark, log, log_from });
        let watched = self.looked.is_some_and(|looked| now - looked < LAPSE);
        self.view = View { number, memory_from, taken: now, watched };
        self.looked = Some(now);
        self.reopen_wait = REOPEN_WAIT.0;
        Ok(Look::NewView)
    }

    /// Lets every channel that can move do so, the one furthest behind first, until none can or until `deadline`.
    fn round<'db>(&mut self, scans: &mut Scans<'db>, deadline: Instant) -> Result<Round> {
        let mut round = Round::default();
        let mut short: HashSet<u64> = HashSet::new();
        let (mut unsaid, mut unsaid_bytes) = (false, 0);
        let result = loop {
            self.channels.retain(|channel| !channel.outlet.is_over());
            let view = self.view;
            let chosen = self
                .channels
                .iter_mut()
                .filter_map(|channel| {
                    (!short.contains(&channel.serial) && channel.can_move(view)).then_some(channel)
                })
                .min_by_key(|channel| channel.outlet.last_tick());
            let Some(channel) = chosen else { break Ok(()) };
            if channel.outlet.send_notice() {
                (unsaid, round.moved) = (true, true);
                continue;
            }
            match scans.read(channel, view) {
                Ok(read) => {
                    unsaid |= read.pushed;
                    unsaid_bytes += read.bytes;
                    round.bytes += read.bytes;
                    round.moved |= read.pushed;
                    if read.stop == Stop::NoCredit {
                        short.insert(channel.serial);
                    }
                }
                Err(error) => {
                    channel.read_errors += 1;
                    let last_chance = channel.read_errors >= READ_ATTEMPTS;
                    if last_chance || matches!(error.kind(), Kind::Gap | Kind::Version) {
                        let name = channel.name.clone();
                        channel.outlet.fail(match error.kind() {
                            Kind::Gap => error,
                            _ => error.context(format!("channel {name}")),
                        });
                    } else {
                        break Err(error);
                    }
                }
            }
            if unsaid_bytes >= WAKE_BYTES {
                (self.context.wake)();
                (unsaid, unsaid_bytes) = (false, 0);
            }
            if Instant::now() >= deadline {
                round.unfinished = true;
                break Ok(());
            }
        };
        if unsaid {
            (self.context.wake)();
        }
        let view = self.view;
        scans.forget_closed(&self.channels);
        round.credit_short = !short.is_empty();
        round.queue_full =
            self.channels.iter_mut().any(|channel| channel.wants_to_move(view) && !channel.outlet.has_room());
        result.map(|()| round)
    }

    /// Carries out what was asked. `false` if the handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.pace.busy(Instant::now());
        match command {
            Command::Open { start, outlet } => {
                let channel = outlet.channel().clone();
                self.channels.retain(|open| open.name != channel);
                self.opened_count += 1;
                tracing::debug!(%channel, ?start, "opened");
                let first_view = self.view.number + 1;
                self.channels.push(Channel::new(self.opened_count, channel, start, *outlet, first_view));
            }
            Command::Close { channel } => self.channels.retain(|open| open.name != channel),
        }
    }
}

impl Channel {
    /// Whether there may be something to read or to say.
    fn wants_to_move(&self, view: View) -> bool {
        let read_already = self.tail.is_some_and(|tail| tail.number == view.number);
        self.outlet.has_notice() || !self.needs_view_after(view) && !read_already
    }

    /// Whether the present view does not do: the channel was opened after it was taken, or what is there looked
    /// like a gap, which is believed when it is seen twice.
    fn needs_view_after(&self, view: View) -> bool {
        self.first_view > view.number || self.gap_seen == Some(view.number)
    }

    fn can_move(&mut self, view: View) -> bool {
        self.wants_to_move(view) && self.outlet.has_room()
    }
}

/// The files of the store at the latest view.
///
/// What is in memory there: while the table files (`mark`) are the same, all that came since. When they have changed,
/// some logs may have become table files; but not the one that is being written. So if that is still `log`, which was
/// there before the view `log_from` was taken, then that view had all of the earlier logs, and all that came after it
/// is in `log`, and in memory.
struct Files {
    mark: Mark,
    log: Option<u64>,
    log_from: u64,
}
