//! The thread that serves all channels.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;

use super::channel::{Channel, Stop};
use super::client::{Health, Listener};
use crate::milvus::channel::PChannel;
use crate::sources::outlet::Outlet;
use crate::sources::{Context, Start};

/// Payload bytes that are put into queues before the consumer is woken in the middle of a round.
const WAKE_BYTES: usize = 512 << 10;
/// The thread looks around this often even if nothing wakes it.
const REST: Duration = Duration::from_millis(100);
/// Waiting for room in queues: first and longest.
const ROOM_WAIT: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(5));
/// A channel whose topic the brokers don't tell of is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the handle asks of the thread.
pub(super) enum Command {
    Open { start: Start, outlet: Box<Outlet> },
    Close { channel: PChannel },
}

pub(super) struct Reader {
    consumer: Arc<BaseConsumer<Listener>>,
    health: Arc<Health>,
    context: Context,
    commands: Receiver<Command>,
    channels: Vec<Channel>,
}

/// What a round over the channels came to.
#[derive(Default)]
struct Round {
    credit_short: bool,
    queue_full: bool,
    moved: bool,
}

impl Reader {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Listener>>,
        health: Arc<Health>,
        context: Context,
        commands: Receiver<Command>,
    ) -> Reader {
        Reader { consumer, health, context, commands, channels: Vec::new() }
    }

    /// Serves until the pipeline stops.
    pub(super) fn run(mut self) {
        let mut room_wait = ROOM_WAIT.0;
        while !self.context.stop.load(Ordering::Relaxed) && self.take_commands() {
            self.serve_events();
            self.seek_channels();
            let round = self.round();
            self.channels.iter_mut().for_each(|channel| channel.listen(&self.health));
            if round.moved {
                room_wait = ROOM_WAIT.0;
                continue;
            }
            if round.queue_full {
                // The dataflow does not say when it has made room.
                std::thread::park_timeout(room_wait);
                room_wait = (room_wait * 2).min(ROOM_WAIT.1);
            } else if round.credit_short {
                self.context.credits.wait(ROOM_WAIT.1);
            } else {
                std::thread::park_timeout(REST);
            }
        }
        for channel in &self.channels {
            channel.unassign(&self.consumer);
        }
    }

    /// Serves librdkafka's own events: errors, which go to `Health`. Messages come by the queues of their channels.
    fn serve_events(&mut self) {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                Ok(message) => {
                    let channel =
                        self.channels.iter_mut().find(|channel| *channel.name.0 == *message.topic());
                    if let Some(channel) = channel {
                        channel.astray(message.offset());
                    }
                }
                Err(error) => tracing::debug!(%error, "librdkafka"),
            }
        }
    }

    /// All are asked for before the first is fetched from: a broker answers one request at a time, and waits before it
    /// answers a fetch.
    fn seek_channels(&mut self) {
        for channel in self.channels.iter_mut().filter(|channel| channel.is_sought(ASK_AGAIN)) {
            channel.seek(&self.consumer, &self.health);
        }
        for channel in &mut self.channels {
            let thread = std::thread::current();
            channel.assign(&self.consumer, move || thread.unpark());
        }
    }

    /// Lets every channel that can move do so, the one furthest behind first, until none can.
    fn round(&mut self) -> Round {
        let mut round = Round::default();
        let mut resting: HashSet<PChannel> = HashSet::new();
        let (mut unsaid, mut unsaid_bytes) = (false, 0);
        loop {
            self.remove_ended();
            let mut chosen: Option<&mut Channel> = None;
            for channel in &mut self.channels {
                if resting.contains(&channel.name) {
                    continue;
                }
                if !channel.outlet.has_room() {
                    round.queue_full = true;
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
            let (stop, pushed) = channel.read(&self.consumer);
            unsaid |= pushed.is_some();
            unsaid_bytes += pushed.unwrap_or(0);
            round.moved |= pushed.is_some();
            round.credit_short |= stop == Stop::NoCredit;
            if stop != Stop::Full {
                // What it has to say beside messages is said before it rests.
                unsaid |= channel.outlet.has_room() && channel.outlet.send_notice();
                resting.insert(channel.name.clone());
            }
            if unsaid_bytes >= WAKE_BYTES {
                (self.context.wake)();
                (unsaid, unsaid_bytes) = (false, 0);
            }
        }
        if unsaid {
            (self.context.wake)();
        }
        round
    }

    fn remove_ended(&mut self) {
        let consumer = &self.consumer;
        self.channels.retain(|channel| {
            let over = channel.outlet.is_over();
            if over {
                channel.unassign(consumer);
            }
            !over
        });
    }

    /// Carries out what was asked. `false` if the handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open { start, outlet }) => {
                    self.close(&outlet.channel().clone());
                    tracing::debug!(channel = %outlet.channel(), ?start, "opened");
                    self.channels.push(Channel::new(start, *outlet));
                }
                Ok(Command::Close { channel }) => self.close(&channel),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn close(&mut self, name: &PChannel) {
        if let Some(at) = self.channels.iter().position(|channel| channel.name == *name) {
            self.channels.swap_remove(at).unassign(&self.consumer);
        }
    }
}
