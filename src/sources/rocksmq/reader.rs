//! The thread that owns the secondary and serves all channels.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::channel::{Channel, Read, Stop, Tail};
use super::cursor::{Cursor, Next};
use super::store::{CaughtUp, Mark, Store, Watch};
use crate::error::{Error, Kind, Result};
use crate::milvus::channel::PChannel;
use crate::sources::{Context, Delivery, Start};

/// How often the store is looked at. A message is handed over this long after it was written, at most, and a bit.
const POLL: Duration = Duration::from_millis(10);
/// How often it is read although it does not look changed.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// If the store was not looked at for this long, messages may have been written *and* trimmed meanwhile.
const LAPSE: Duration = Duration::from_secs(2);
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
    reopen_wait: Duration,
}

/// What of the store is visible: it advances with every complete catch-up.
#[derive(Clone, Copy, Debug)]
struct View {
    number: u64,
    /// Grows whenever the table files change: with the same generation, everything new is in memory.
    generation: u64,
    /// The store was watched all the time since the view before, so nothing was written and trimmed in between.
    continuous: bool,
}

/// Why the thread leaves a store.
enum Leave {
    /// The pipeline stops.
    Stopped,
    /// Milvus replaced its MANIFEST.
    Replaced,
    Failed(Error),
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
            view: View { number: 0, generation: 0, continuous: false },
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
            if self.stopping() || !self.wait_for_command(left.min(Duration::from_millis(50))) {
                return true;
            }
        }
    }

    fn stopping(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }

    /// Reads one open store for as long as that goes well.
    fn follow(&mut self, store: &Store) -> Leave {
        let mut watch = Watch::new(&self.path);
        let mut scans = Scans { store, long: HashMap::new(), memory: None };
        let mut mark: Option<Mark> = None;
        // When the store was looked at, and when that last told all that is in it.
        let mut polled: Option<Instant> = None;
        let mut seen: Option<Instant> = None;
        let mut refreshed: Option<Instant> = None;
        let mut room_wait = ROOM_WAIT.0;
        loop {
            if self.stopping() || !self.take_commands() {
                return Leave::Stopped;
            }
            let now = Instant::now();
            if polled.is_none_or(|polled| now - polled >= POLL) {
                let due = refreshed.is_none_or(|refreshed| now - refreshed >= HEARTBEAT)
                    || self.channels.iter().any(|channel| channel.needs_view_after(self.view));
                if watch.changed() || due {
                    match store.catch_up() {
                        Ok(CaughtUp::Complete(now_at)) => {
                            let continuous = seen.is_some_and(|seen| now - seen < LAPSE);
                            let same_files = mark.as_ref() == Some(&now_at);
                            self.advance_view(same_files, continuous);
                            scans.memory = None;
                            scans.drop_old();
                            mark = Some(now_at);
                            refreshed = Some(now);
                            seen = Some(now);
                            self.reopen_wait = REOPEN_WAIT.0;
                        }
                        Ok(CaughtUp::Unsettled) => refreshed = None,
                        Ok(CaughtUp::Replaced) => return Leave::Replaced,
                        Err(error) => return Leave::Failed(error),
                    }
                } else {
                    seen = Some(now);
                }
                polled = Some(Instant::now());
            }
            let next_poll = polled.map_or(now, |polled| polled + POLL);
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
                if !self.wait_for_command(rest.min(room_wait)) {
                    return Leave::Stopped;
                }
                room_wait = (room_wait * 2).min(ROOM_WAIT.1);
            } else if round.credit_short {
                self.context.credits.wait(rest.min(ROOM_WAIT.1));
            } else if !self.wait_for_command(rest) {
                return Leave::Stopped;
            }
        }
    }

    fn advance_view(&mut self, same_files: bool, continuous: bool) {
        self.view.number += 1;
        self.view.continuous = continuous;
        if !same_files {
            self.view.generation += 1;
        }
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
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Waits until something is asked, and carries it out. `false` if the handle is gone.
    fn wait_for_command(&mut self, at_most: Duration) -> bool {
        match self.commands.recv_timeout(at_most) {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
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
        let read_already = self.tail.is_some_and(|tail| tail.view == view.number);
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

    /// Whether the view before this one was read to its end and nothing can have been trimmed unseen since.
    fn was_at_tail(&self, view: View) -> Option<Tail> {
        self.tail.filter(|tail| view.continuous && tail.view + 1 == view.number)
    }
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
    view: u64,
    begun: Instant,
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
            let tail = channel.was_at_tail(view);
            if tail.is_some_and(|tail| tail.generation == view.generation) {
                // All that came since is in memory, and finding it there costs next to nothing.
                let cursor = self.memory.get_or_insert_with(|| Cursor::new(store.scan_memory()));
                cursor.seek(&channel.topic, channel.next)?;
                let read = channel.read(cursor, &context.credits, unknown_types)?;
                if read.stop == Stop::End {
                    channel.note_end();
                    channel.tail = Some(Tail { view: view.number, generation: view.generation });
                }
                return Ok(read);
            }
            let scan = store.scan(channel.topic.lower_bound(), channel.topic.upper_bound());
            let mut cursor = Cursor::new(scan);
            channel.note_goal(&mut cursor)?;
            let found = cursor.seek(&channel.topic, channel.next)?;
            if !found && !nothing_lost(channel, &cursor, tail)? {
                if channel.gap_seen.replace(view.number).is_none() {
                    return Ok(Read { stop: Stop::Full, pushed: false, bytes: 0 });
                }
                return Err(channel.gap(cursor.current(&channel.topic)?.map(|(id, _)| id)));
            }
            channel.gap_seen = None;
            self.long.insert(channel.serial, Scan { cursor, view: view.number, begun: Instant::now() });
        }
        let Some(scan) = self.long.get_mut(&channel.serial) else {
            return Err(Error::new(Kind::Internal, "an iterator got lost"));
        };
        let read = channel.read(&mut scan.cursor, &context.credits, unknown_types);
        let at_end = read.as_ref().map_or(true, |read| read.stop == Stop::End);
        if at_end {
            if read.is_ok() && scan.view == view.number {
                channel.note_end();
                channel.tail = Some(Tail { view: view.number, generation: view.generation });
            }
            self.long.remove(&channel.serial);
        }
        read
    }

    /// Ends scans that have kept files in use for long. Their channels go on with a fresh one.
    fn drop_old(&mut self) {
        self.long.retain(|_, scan| scan.begun.elapsed() < CURSOR_AGE);
    }

    fn forget_closed(&mut self, channels: &[Channel]) {
        if !self.long.is_empty() {
            self.long.retain(|serial, _| channels.iter().any(|channel| channel.serial == *serial));
        }
    }
}

/// Whether a channel can go on although the message that it read last is gone.
///
/// Milvus trims a topic from its start, so while the last message read is there, none after it was trimmed. If it
/// is gone, nothing is lost only if the next id follows directly (2.4 and later number each topic by itself), or if
/// the channel was at its end a moment ago and the store was watched since: messages can't have come, been consumed
/// by Milvus, filled a page (64 MiB) and been trimmed within that moment.
fn nothing_lost(channel: &Channel, cursor: &Cursor<'_>, tail: Option<Tail>) -> Result<bool> {
    let Next::After(last) = channel.next else { return Ok(false) };
    if tail.is_some() {
        tracing::debug!(channel = %channel.name, last, "the last message was trimmed, at the end of the topic");
        return Ok(true);
    }
    Ok(cursor.current(&channel.topic)?.is_some_and(|(first, _)| first.checked_sub(1) == Some(last)))
}
