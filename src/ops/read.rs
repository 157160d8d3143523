//! `read`: takes messages from the queues of all open channels.
//!
//! Input: which channels to open and retire. Output: raw messages, channel by channel in topic order.
//! Capability held: one for all channels together, at the least tick among them.
//! What moves the frontier: every channel having passed a tick.
//!
//! There is one operator for all channels, since a timely graph can't grow while channels come and go. One
//! capability is enough: rows carry their own ts, and travel at a lower bound of it. A channel that is opened later
//! brings the capability of its `Open` event along.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;
use timely::scheduling::SyncActivator;
use tokio::sync::watch;

use super::{ChannelEvent, Parcel, Raw};
use crate::dataflow::shared::Shared;
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::channel::PChannel;
use crate::milvus::tso::Tso;
use crate::sources::{Delivery, EnvelopeKind, LogSource};

/// Deliveries taken from one channel per activation: bounds how long the operator keeps the worker.
const FUEL: usize = 16;

/// A retired channel may get no more ticks: this long without a message also ends it.
const RETIRE_AFTER: Duration = Duration::from_secs(2);

/// One open channel.
struct Channel {
    queue: Receiver<Delivery>,
    tick: Tso,
    initial: bool,
    retire: Option<Tso>,
    quiet_since: Instant,
}

/// Builds the operator. `connect` opens the queue, given what wakes the operator; `ticks` gets the highest tick seen on any channel.
pub fn read<'scope>(
    events: Stream<'scope, Tso, Vec<ChannelEvent>>,
    connect: impl FnOnce(SyncActivator) -> Result<Box<dyn LogSource>>,
    ticks: watch::Sender<Tso>,
    shared: Rc<Shared>,
) -> Result<Stream<'scope, Tso, Vec<Parcel<Vec<Raw>>>>> {
    let worker = events.scope().worker().clone();
    let mut failed = None;
    let raws = events.unary_frontier(Pipeline, "read", |initial, info| {
        drop(initial);
        let source = match connect(worker.sync_activator_for(info.address.to_vec())) {
            Ok(source) => Some(source),
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        shared.set_read_activator(worker.activator_for(Rc::clone(&info.address)));
        let activator = worker.activator_for(Rc::clone(&info.address));
        let mut hold: Option<Capability<Tso>> = None;
        let mut channels: BTreeMap<PChannel, Channel> = BTreeMap::new();
        move |(input, _frontier), output| {
            let Some(source) = &source else { return };
            let now = shared.world.now();
            input.for_each(|cap, events| {
                for event in events.drain(..) {
                    match event {
                        ChannelEvent::Open { channel, start, initial } => {
                            let Some(held) = cap.least().copied() else { continue };
                            if let Some(retiring) = channels.get_mut(&channel) {
                                // A new collection came before the channel was given up.
                                retiring.retire = None;
                                continue;
                            }
                            shared.channels.open(&channel);
                            let queue = source.open(&channel, start);
                            tracing::debug!(%channel, "reading");
                            channels.insert(
                                channel,
                                Channel { queue, tick: held, initial, retire: None, quiet_since: now },
                            );
                            if hold.as_ref().is_none_or(|hold| *hold.time() > held) {
                                hold = Some(cap.delayed(&held, output.output_index()));
                            }
                        }
                        ChannelEvent::Retire { channel, at } => {
                            if let Some(channel) = channels.get_mut(&channel) {
                                channel.retire = Some(at);
                            }
                        }
                    }
                }
            });
            if let Some(positions) = shared.take_released() {
                failpoint::pass(Point::CommitReleased);
                source.release(&positions);
            }
            let Some(cap) = hold.as_mut() else { return };
            let mut raws: Vec<Raw> = Vec::new();
            let mut more = false;
            let mut retired: Vec<PChannel> = Vec::new();
            for (name, channel) in &mut channels {
                let mut fuel = FUEL;
                loop {
                    if fuel == 0 {
                        more = true;
                        break;
                    }
                    fuel -= 1;
                    match channel.queue.try_recv() {
                        Ok(Delivery::Messages(envelopes)) => {
                            channel.quiet_since = now;
                            let before = channel.tick;
                            for envelope in envelopes {
                                if let EnvelopeKind::Tick(tick) = envelope.kind {
                                    // Repeated and backward ticks occur; they say nothing new.
                                    channel.tick = channel.tick.max(tick);
                                }
                                raws.push(Raw::Message(name.clone(), envelope));
                            }
                            if channel.tick > before {
                                shared.channels.passed(name, channel.tick);
                            }
                        }
                        Ok(Delivery::CaughtUp) if channel.initial => raws.push(Raw::Head(name.clone())),
                        Ok(Delivery::CaughtUp) => {}
                        Ok(Delivery::Failed(error)) => {
                            shared.fail(error);
                            return;
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            // A source that can't go on says why first; this one is gone without a word.
                            shared
                                .fail(Error::new(Kind::Internal, format!("the reader of {name} has ended")));
                            return;
                        }
                    }
                }
                if let Some(at) = channel.retire
                    && (channel.tick >= at
                        || now.saturating_duration_since(channel.quiet_since) > RETIRE_AFTER)
                {
                    retired.push(name.clone());
                }
            }
            for name in retired {
                tracing::debug!(channel = %name, "no longer read: its last selected collection is gone");
                source.close(&name);
                shared.credits.close(&name);
                shared.channels.close(&name);
                channels.remove(&name);
                raws.push(Raw::End(name));
            }
            if !raws.is_empty() {
                // One timely record per activation: the messages themselves go through in one piece.
                output.session(&cap).give(Parcel::new(RefCell::new(raws)));
            }
            let slowest = channels.iter().min_by_key(|(_, channel)| channel.tick);
            let Some((laggard, least)) = slowest.map(|(name, channel)| (name, channel.tick)) else {
                hold = None;
                shared.credits.set_laggard(None, false);
                return;
            };
            if least > *cap.time() {
                cap.downgrade(&least);
            }
            if let Some(highest) = channels.values().map(|channel| channel.tick).max() {
                shared.progress.read(least, highest);
                ticks.send_if_modified(|tick| {
                    let newer = *tick < highest;
                    *tick = highest.max(*tick);
                    newer
                });
            }
            // With nothing downstream to do, only the next tick of the slowest channel can free any bytes, so that
            // channel may read beyond the budget. Not while there are ticks that have not been looked at, or while `order`
            // has not released all that it can with this one: then it may be the catalog that holds everything back.
            let starved = shared.is_idle() && !more && shared.ordered() >= least;
            shared.credits.set_laggard(Some(laggard), starved);
            if more {
                activator.activate();
            } else if channels.values().any(|channel| channel.retire.is_some()) {
                activator.activate_after(RETIRE_AFTER);
            }
        }
    });
    match failed {
        None => Ok(raws),
        Some(error) => Err(error),
    }
}
