//! A Milvus as a standby: the source's messages go into its own log, by ReplicateMessage.
//!
//! ```text
//! write ──► readdressed messages, one call after the other to a topic ──► the target's topics
//! committed(F) ──► ticks F ─────────────────────────────────────────────►   (ticks.rs)
//! ```
//!
//! How it comes that each message takes effect once: of messages with one id (`base.msgID`) that a Milvus finds between
//! two ticks of a topic it takes the first (`MqTtMsgStream`; tried on 2.3.5, through a restart too, and with other ticks
//! between the two if these are earlier than the messages). So a message may be sent again, as long as no tick that
//! reaches its time has been given. A tick F is given only after F is durable in the checkpoint; after a crash
//! everything later than F is sent again, and nothing up to F ever is.

mod encode;
mod place;
mod ticks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::milvus::MilvusSink;
use super::{Forwarded, Found, Operation, Sink, Write};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{self, Point};
use crate::milvus::catalog::{Catalog, Collection, CollectionId, CollectionName, Ddl};
use crate::milvus::channel::VChannel;
use crate::milvus::tso::Tso;
use crate::ownership::Fence;
use crate::pipeline::MilvusTarget;
use crate::proxy::rope::Rope;
use crate::proxy::{MAX_REQUEST, RowCall};
use place::{Place, pchannel_of, shard_of};
use ticks::Ticks;

/// How long a question may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Whose turn it is to send messages to a topic.
type Turn = tokio::sync::Mutex<()>;

/// A standby of Milvus 2.3, 2.4 or 2.5, whose `common.ttMsgEnabled` is false.
pub struct ReplicateSink {
    milvus: MilvusSink,
    ticks: Ticks,
    places: Mutex<HashMap<CollectionId, Arc<Place>>>,
    turns: Mutex<HashMap<String, Arc<Turn>>>,
    /// The latest time that was sent.
    high: AtomicU64,
}

impl ReplicateSink {
    /// Connects, and checks that it is a standby.
    ///
    /// # Errors
    /// As [`MilvusSink::connect`]; `Refused` if it is none.
    pub async fn connect(config: &MilvusTarget, fence: Fence) -> Result<ReplicateSink> {
        let milvus = MilvusSink::connect(config, fence).await?;
        probe(&milvus).await?;
        let ticks = Ticks::start(milvus.client().clone());
        Ok(ReplicateSink {
            milvus,
            ticks,
            places: Mutex::default(),
            turns: Mutex::default(),
            high: AtomicU64::new(1),
        })
    }

    /// Sends messages of one shard.
    async fn forward(
        &self,
        collection: &Collection,
        source: &VChannel,
        messages: &[Forwarded],
        end: Instant,
    ) -> Result<()> {
        let mut place = self.place(collection).await?;
        let is_missing = |place: &Place| {
            messages
                .iter()
                .filter_map(|message| message.partition.as_deref())
                .any(|name| !place.partitions.contains_key(name))
        };
        if is_missing(&place) {
            let mut newer = Place::clone(&place);
            newer.look(self.milvus.client()).await?;
            place = self.keep(collection.id, newer);
        }
        let shard = shard_of(&source.0).unwrap_or(usize::MAX);
        let mut ropes = Vec::with_capacity(messages.len());
        let (mut begin, mut high) = (Tso::MAX, Tso::ZERO);
        for Forwarded { ts, partition, message } in messages {
            let partition = match partition {
                None => None,
                Some(name) => {
                    let id = place.partitions.get(&**name).ok_or_else(|| {
                        Error::new(Kind::NotFound, format!("partition {name} of {} is not there", place.name))
                    })?;
                    Some((&**name, *id))
                }
            };
            let rope = encode::readdressed(&message.payload, &place, shard, partition)
                .map_err(|error| error.context(format!("{source} at {ts}")))?;
            (begin, high) = (begin.min(*ts), high.max(*ts));
            ropes.push(rope);
        }
        let pchannel = pchannel_of(place.vchannel(shard)?);
        let what = format!(
            "ReplicateMessage of {} messages of {} to {pchannel} at {}",
            ropes.len(),
            place.name,
            self.milvus.client().uri()
        );
        let _turn = self.turn(&pchannel, end).await?;
        for (index, part) in parts(ropes).into_iter().enumerate() {
            if index > 0 {
                failpoint::pass(Point::CallPart);
            }
            self.send(encode::call(&pchannel, begin, high, part), end, &what).await?;
        }
        self.high.fetch_max(high.0, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until no other messages are on their way to the topic, so that what may be in doubt is one call of each.
    async fn turn(&self, pchannel: &str, end: Instant) -> Result<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(pchannel.to_owned()).or_default())
        };
        // The call itself needs time too.
        let wait = end.saturating_duration_since(Instant::now()) / 2;
        timeout(wait, turn.lock_owned()).await.map_err(|_| {
            Error::new(Kind::Unavailable, format!("no turn within {wait:.1?} to send to {pchannel}"))
        })
    }

    async fn send(&self, call: Rope, end: Instant, what: &str) -> Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(Kind::Unavailable, format!("{what}: no time left before the deadline")));
        }
        self.milvus.client().send_rows(RowCall::ReplicateMessage, call, left, what).await?;
        Ok(())
    }

    /// Where `collection` is on the target.
    async fn place(&self, collection: &Collection) -> Result<Arc<Place>> {
        if let Some(place) = self.known(collection.id) {
            return Ok(place);
        }
        let place = Place::find(self.milvus.client(), &collection.name).await?;
        let place = place.ok_or_else(|| not_there(&collection.name))?;
        Ok(self.keep(collection.id, place))
    }

    fn known(&self, id: CollectionId) -> Option<Arc<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn keep(&self, id: CollectionId, place: Place) -> Arc<Place> {
        self.ticks.add(place.pchannels());
        let place = Arc::new(place);
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&place));
        place
    }

    fn forget(&self, id: CollectionId) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Tells the nodes that follow a collection's channels what is dropped; the call that drops it does not, on a standby.
    async fn announce(&self, ddl: &Ddl, end: Instant) -> Result<()> {
        let (Ddl::DropCollection { name, .. } | Ddl::DropPartition { name, .. }) = ddl else { return Ok(()) };
        let Some(place) = Place::find(self.milvus.client(), name).await? else { return Ok(()) };
        let ts = Tso(self.high.load(Ordering::Relaxed)).max(self.ticks.wanted());
        let what = format!("ReplicateMessage of a drop in {name} at {}", self.milvus.client().uri());
        for pchannel in place.pchannels() {
            let message = match ddl {
                Ddl::DropPartition { partition, .. } => match place.partitions.get(partition) {
                    Some(id) => encode::drop_partition(&place, partition, *id, ts),
                    None => return Ok(()),
                },
                _ => encode::drop_collection(&place, ts),
            };
            let _turn = self.turn(&pchannel, end).await?;
            self.send(encode::call(&pchannel, ts, ts, vec![message]), end, &what).await?;
        }
        self.ticks.add(place.pchannels());
        Ok(())
    }
}

#[async_trait]
impl Sink for ReplicateSink {
    async fn write(&self, write: &Write, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        match &write.operation {
            Operation::Messages(source, messages) => {
                self.forward(&write.collection, source, messages, end).await
            }
            _ => Err(Error::new(Kind::Internal, "rows were to go to a standby, which takes messages")),
        }
    }

    async fn apply(&self, ddl: &Ddl, deadline: Duration) -> Result<()> {
        self.announce(ddl, Instant::now() + deadline).await?;
        self.milvus.apply(ddl, deadline).await?;
        match ddl {
            Ddl::CreateCollection(collection) => drop(self.place(collection).await?),
            // Their ids may be others by the next time that something has their names.
            Ddl::CreatePartition { id, .. } | Ddl::DropPartition { id, .. } => {
                if let Some(place) = self.known(*id) {
                    let mut newer = Place::clone(&place);
                    newer.look(self.milvus.client()).await?;
                    self.keep(*id, newer);
                }
            }
            // By the next time that its messages come, it has its other name.
            Ddl::DropCollection { id, .. } | Ddl::RenameCollection { id, .. } => self.forget(*id),
            _ => {}
        }
        Ok(())
    }

    async fn find(&self, name: &CollectionName) -> Result<Found> {
        self.milvus.find(name).await
    }

    async fn differences(&self, wanted: &Collection) -> Result<Vec<String>> {
        self.milvus.differences(wanted).await
    }

    fn objections(&self, wanted: &Catalog) -> Vec<String> {
        self.milvus.objections(wanted)
    }

    fn describe(&self) -> String {
        format!("standby {}", self.milvus.describe())
    }

    async fn resume(&self, applied: &Catalog, frontier: Option<Tso>) -> Result<()> {
        for collection in applied.collections.values() {
            // What is not there was dropped by somebody; its rows will say so, if there are any.
            if let Some(place) = Place::find(self.milvus.client(), &collection.name).await? {
                self.keep(collection.id, place);
            }
        }
        if let Some(frontier) = frontier {
            self.ticks.reach(frontier);
        }
        Ok(())
    }

    fn committed(&self, frontier: Tso) {
        self.ticks.reach(frontier);
    }

    fn failed(&self) -> Option<Error> {
        self.ticks.failed()
    }

    async fn settle(&self, within: Duration) -> Result<()> {
        self.ticks.settle(within).await
    }
}

/// Asks for the impossible: only a standby goes so far as to see that.
async fn probe(milvus: &MilvusSink) -> Result<()> {
    let client = milvus.client();
    let what = format!("asking {} whether it is a standby", client.uri());
    let answer = client.send_rows(RowCall::ReplicateMessage, Rope::default(), DEADLINE, &what).await;
    match answer {
        // A parameter is missing.
        Err(error) if error.message().contains("(Milvus code 1100)") => Ok(()),
        Err(error) if matches!(error.kind(), Kind::Refused | Kind::Version | Kind::InDoubt) => {
            Err(Error::new(Kind::Refused, format!("the target at {} is not a standby", client.uri()))
                .caused_by(error)
                .hint(
                    "set common.ttMsgEnabled to false in the milvus.yaml of a Milvus 2.3 to 2.5 and restart it, or leave \
                     out mode = \"replicate\" in [target]",
                ))
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

fn not_there(name: &CollectionName) -> Error {
    Error::new(Kind::NotFound, format!("collection {name} is not there"))
}

/// Messages in groups that fit into a request. One that does not fit alone is for the server to refuse.
fn parts(messages: Vec<Rope>) -> Vec<Vec<Rope>> {
    let mut parts: Vec<Vec<Rope>> = Vec::new();
    let mut room = 0;
    for message in messages {
        match parts.last_mut() {
            Some(part) if message.len() <= room => {
                room -= message.len();
                part.push(message);
            }
            _ => {
                room = MAX_REQUEST.saturating_sub(message.len());
                parts.push(vec![message]);
            }
        }
    }
    parts
}
