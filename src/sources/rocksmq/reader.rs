//! The thread that owns the secondary and serves all channels.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::channel::{Channel, Read, Stop, View};
use super::cursor::{Cursor, Next};
use super::store::{CaughtUp, Mark, Store};
use super::watch::Watch;
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::sources::{Context, Delivery, Start};

/// How often the store is looked at. A message is handed over this long after it was written, at most, and a bit.
const POLL: Duration = Duration::from_millis(10);
/// How often it is read although it does not look changed.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Within this time messages can't have been written, moved to a table file *and* trimmed: Milvus would have to fill a
/// page of 64 MiB with them, consume it, and come by with its retention, which it does every 10 minutes.
const LAPSE: Duration = Duration::from_millis(100);
/// A long scan keeps deleted files and memory in use; after this long it goes on with a fresh iterator.
pub(super) const CURSOR_AGE: Duration = Duration::from_secs(5);
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
    Open { channel: PChannel, start: Start, sender: Sender<Delivery> },
    Close { channel: PChannel },
}

pub(super) struct Reader {
    path: PathBuf,
    scratch: PathBuf,
    context: Context,
    commands: Receiver<Command>,
    channels: Vec<Channel>,
    /// Message types that were warned about.
    unknown_types: HashSet<i32>,
    opened_count: u64,
    view: View,
    /// When the store was last looked at and all that was in it was visible.
    looked: Option<Instant>,
    reopen_wait: Duration,
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
            unknown_types: HashSet::new(),
            opened_count: 0,
            view: View { number: 0, memory_from: 0, taken: Instant::now(), watched: false },
            looked: None,
            reopen_wait: REOPEN_WAIT.0,
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
        let mut scans = Scans { store, long: HashMap::new(), memory: None };
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
            if polled.is_none_or(|polled| polled.elapsed() >= POLL) {
                match self.look(store, &mut watch, &mut files) {
                    Ok(Look::NewView) => scans.start_view(),
                    Ok(Look::Nothing) => {}
                    Ok(Look::Replaced) => return Leave::Replaced,
                    Err(error) => return Leave::Failed(error),
                }
                polled = Some(Instant::now());
            }
            let next_poll = polled.map_or_else(Instant::now, |polled| polled + POLL);
            let round = match self.round(&mut scans, next_poll) {
                Ok(round) => round,
                Err(error) => return Leave::Failed(error),
            };
            if round.moved {
                room_wait = ROOM_WAIT.0;
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
            CaughtUp::Unsettled => {
                // Begun anew at the next poll; what was visible before still is.
                *files = None;
                return Ok(Look::Nothing);
            }
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
            self.channels.retain(|channel| !channel.is_over());
            let view = self.view;
            let chosen = self
                .channels
                .iter_mut()
                .filter(|channel| channel.can_move(view) && !short.contains(&channel.serial))
                .min_by_key(|channel| channel.last_tick);
            let Some(channel) = chosen else { break Ok(()) };
            if channel.has_notice() {
                channel.send_notice();
                (unsaid, round.moved) = (true, true);
                continue;
            }
            match scans.read(channel, view, &self.context, &mut self.unknown_types) {
                Ok(read) => {
                    unsaid |= read.pushed;
                    unsaid_bytes += read.bytes;
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
                        channel.fail(if error.kind() == Kind::Gap { error } else { error.context(name) });
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
            self.channels.iter().any(|channel| !channel.has_room() && channel.wants_to_move(view));
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
        match command {
            Command::Open { channel, start, sender } => {
                self.channels.retain(|open| open.name != channel);
                self.context.credits.open(&channel);
                self.opened_count += 1;
                tracing::debug!(%channel, ?start, "opened");
                let first_view = self.view.number + 1;
                self.channels.push(Channel::new(self.opened_count, channel, start, sender, first_view));
            }
            Command::Close { channel } => self.channels.retain(|open| open.name != channel),
        }
    }
}

impl Channel {
    /// Whether there may be something to read or to say.
    fn wants_to_move(&self, view: View) -> bool {
        let read_already = self.tail.is_some_and(|tail| tail.number == view.number);
        self.has_notice() || !self.needs_view_after(view) && !read_already
    }

    /// Whether the present view does not do: the channel was opened after it was taken, or what is there looked
    /// like a gap, which is believed when it is seen twice.
    fn needs_view_after(&self, view: View) -> bool {
        self.first_view > view.number || self.gap_seen == Some(view.number)
    }

    fn can_move(&self, view: View) -> bool {
        self.wants_to_move(view) && self.has_room()
    }

    /// Whether the channel was at its end when the store was looked at last, a moment ago.
    fn was_at_end(&self, view: View) -> bool {
        view.watched && self.tail.is_some_and(|tail| tail.number + 1 == view.number)
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

/// The iterators on one open store.
struct Scans<'db> {
    store: &'db Store,
    /// Channels with a backlog, by serial: an iterator for each, so that none has to find its place again.
    long: HashMap<u64, Scan<'db>>,
    /// Channels at their end share one on the latest view, for what is not in table files.
    memory: Option<Cursor<'db>>,
}

struct Scan<'db> {
    cursor: Cursor<'db>,
    view: View,
}

impl<'db> Scans<'db> {
    /// Reads one delivery of a channel, which has room for it.
    fn read(
        &mut self,
        channel: &mut Channel,
        view: View,
        context: &Context,
        unknown_types: &mut HashSet<i32>,
    ) -> Result<Read> {
        let store = self.store;
        if !self.long.contains_key(&channel.serial) {
            if channel.tail.is_some_and(|tail| tail.number >= view.memory_from) {
                // All that came since is in memory, and finding it there costs next to nothing.
                let cursor = self.memory.get_or_insert_with(|| Cursor::new(store.scan_memory()));
                cursor.seek(&channel.topic, channel.next)?;
                let read = channel.read(cursor, &context.credits, unknown_types)?;
                if read.stop == Stop::End {
                    channel.note_end(view);
                }
                return Ok(read);
            }
            let scan = store.scan(channel.topic.lower_bound(), channel.topic.upper_bound());
            let mut cursor = Cursor::new(scan);
            channel.note_goal(&mut cursor)?;
            let found = cursor.seek(&channel.topic, channel.next)?;
            if !found && !channel.was_at_end(view) && !follows_directly(channel, &cursor)? {
                if channel.gap_seen.replace(view.number).is_none() {
                    return Ok(Read { stop: Stop::Full, pushed: false, bytes: 0 });
                }
                return Err(channel.gap(cursor.current(&channel.topic)?.map(|(id, _)| id)));
            }
            channel.gap_seen = None;
            self.long.insert(channel.serial, Scan { cursor, view });
        }
        let Some(scan) = self.long.get_mut(&channel.serial) else {
            return Err(Error::new(Kind::Internal, "an iterator got lost"));
        };
        let read = channel.read(&mut scan.cursor, &context.credits, unknown_types);
        if read.as_ref().map_or(true, |read| read.stop == Stop::End) {
            if read.is_ok() {
                channel.note_end(scan.view);
            }
            self.long.remove(&channel.serial);
        }
        read
    }

    /// Ends scans that have kept files in use for long: their channels go on with a fresh one.
    fn start_view(&mut self) {
        self.memory = None;
        self.long.retain(|_, scan| scan.view.taken.elapsed() < CURSOR_AGE);
    }

    fn forget_closed(&mut self, channels: &[Channel]) {
        if !self.long.is_empty() {
            self.long.retain(|serial, _| channels.iter().any(|channel| channel.serial == *serial));
        }
    }
}

/// Whether the next id is the one after the message that was read last: 2.4 and later number each topic by itself.
fn follows_directly(channel: &Channel, cursor: &Cursor<'_>) -> Result<bool> {
    let Next::After(last) = channel.next else { return Ok(false) };
    Ok(cursor.current(&channel.topic)?.is_some_and(|(first, _)| first.checked_sub(1) == Some(last)))
}
