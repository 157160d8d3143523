//! The loop that serves all channels.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::channel::{Channel, Common, Stop};
use crate::milvus::channel::{PChannel, Position};
use crate::sources::outlet::Outlet;
use crate::sources::{Context, Start};

/// Payload bytes that are put into queues before the consumer is woken in the middle of a round.
const WAKE_BYTES: usize = 512 << 10;
/// The loop looks around this often even if nothing wakes it.
const REST: Duration = Duration::from_millis(50);
/// Waiting for room in queues, or for credit: first and longest.
const ROOM_WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

/// What the handle asks of the loop.
pub(super) enum Command {
    Open { start: Start, outlet: Box<Outlet> },
    Close { channel: PChannel },
    Release { positions: BTreeMap<PChannel, Position> },
}

pub(super) struct Reader {
    common: Arc<Common>,
    context: Context,
    commands: Receiver<Command>,
    channels: Vec<Channel>,
}

/// What a round over the channels came to.
#[derive(Default)]
struct Round {
    /// There is more to read, and no room in a queue or in the budget.
    stalled: bool,
    moved: bool,
}

impl Reader {
    pub(super) fn new(common: Arc<Common>, context: Context, commands: Receiver<Command>) -> Reader {
        Reader { common, context, commands, channels: Vec::new() }
    }

    /// Serves until the pipeline stops.
    pub(super) async fn run(mut self) {
        let mut room_wait = ROOM_WAIT.0;
        let wake = Arc::clone(&self.common.wake);
        while !self.context.stop.load(Ordering::Relaxed) && self.take_commands() {
            self.channels.iter_mut().for_each(Channel::tend);
            let round = self.round().await;
            if round.moved {
                room_wait = ROOM_WAIT.0;
                continue;
            }
            if round.stalled {
                // Neither the dataflow nor the budget says when there is room, to somebody who must not block.
                tokio::time::sleep(room_wait).await;
                room_wait = (room_wait * 2).min(ROOM_WAIT.1);
            } else {
                drop(tokio::time::timeout(REST, wake.notified()).await);
            }
        }
    }

    /// Lets every channel that can move do so, the one furthest behind first, until none can.
    async fn round(&mut self) -> Round {
        let mut round = Round::default();
        let mut resting: HashSet<PChannel> = HashSet::new();
        let (mut unsaid, mut unsaid_bytes) = (false, 0);
        loop {
            self.channels.retain(|channel| !channel.outlet.is_over());
            let mut chosen: Option<&mut Channel> = None;
            for channel in &mut self.channels {
                if resting.contains(&channel.name) {
                    continue;
                }
                if !channel.outlet.has_room() {
                    round.stalled = true;
                } else if chosen
                    .as_ref()
                    .is_none_or(|chosen| channel.outlet.last_tick() < chosen.outlet.last_tick())
                {
                    chosen = Some(channel);
                }
            }
            let Some(channel) = chosen else { break };
            if channel.outlet.send_notice() {
                (unsaid, round.moved) = (true, true);
                continue;
            }
            let (stop, pushed) = channel.read();
            unsaid |= pushed.is_some();
            unsaid_bytes += pushed.unwrap_or(0);
            round.moved |= pushed.is_some();
            round.stalled |= stop == Stop::NoCredit;
            if stop != Stop::Full {
                // What it has to say beside messages is said before it rests.
                unsaid |= channel.outlet.has_room() && channel.outlet.send_notice();
                resting.insert(channel.name.clone());
            }
            if unsaid_bytes >= WAKE_BYTES {
                (self.context.wake)();
                (unsaid, unsaid_bytes) = (false, 0);
            }
            if pushed.is_some() {
                // The connections are served by this same thread.
                tokio::task::yield_now().await;
            }
        }
        if unsaid {
            (self.context.wake)();
        }
        round
    }

    /// Carries out what was asked. `false` if the handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open { start, outlet }) => {
                    let (mut channel, error) = Channel::new(&start, *outlet, &self.common);
                    tracing::debug!(channel = %channel.name, ?start, "opened");
                    if let Some(error) = error {
                        channel.outlet.fail(error);
                    }
                    self.close(&channel.name);
                    self.channels.push(channel);
                }
                Ok(Command::Close { channel }) => {
                    self.close(&channel);
                    if let Some(keeper) = &self.common.keeper {
                        keeper.forget(&channel);
                    }
                }
                Ok(Command::Release { positions }) => {
                    if let Some(keeper) = &self.common.keeper {
                        keeper.release(&positions);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn close(&mut self, name: &PChannel) {
        self.channels.retain(|channel| channel.name != *name);
    }
}
