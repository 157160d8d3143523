//! `follow`: the catalog as an input of the dataflow.
//!
//! Input: updates of the catalog source, through a queue. Outputs: channels to open and retire, to `read`; collections
//! and steps, to `order`.
//! Capability held: one per output, at the last tick up to which the catalog is known to be complete.
//! What moves the frontier: a linearizable read of etcd that began after a tick was seen (see `sources::catalog`).
//!
//! The catalog is level-triggered: what the source has is compared with what has been emitted, and the difference is
//! emitted. While no channel is read there are no ticks, and a channel may have had its last one when the last collection
//! on it was dropped; then the latest creation or drop that is seen moves the frontier, which is sound because Milvus
//! executes DDL one at a time in the order of its timestamps.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::SyncActivator;

use super::{CatalogEvent, ChannelEvent};
use crate::dataflow::checkpoint::Checkpoint;
use crate::dataflow::shared::Shared;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, Collection, CollectionId, Ddl};
use crate::milvus::channel::{PChannel, Position, VChannel};
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;
use crate::pipeline::{Names, StartAt};
use crate::sources::catalog::{CatalogUpdate, DropTimes, Observed, applied_after, difference};
use crate::sources::{CLOCK_SLACK, Start};

/// The streams that leave the operator, and what wakes it.
pub type Outputs<'scope> =
    (Stream<'scope, Tso, Vec<ChannelEvent>>, Stream<'scope, Tso, Vec<CatalogEvent>>, SyncActivator);

/// Builds the operator.
pub fn follow<'scope>(
    scope: Scope<'scope, Tso>,
    updates: Receiver<CatalogUpdate>,
    checkpoint: &Checkpoint,
    entry: Entry,
    shared: Rc<Shared>,
) -> Outputs<'scope> {
    let worker = scope.worker().clone();
    let mut builder = OperatorBuilder::new("follow".to_owned(), scope);
    let (channels_out, channels) = builder.new_output::<Vec<ChannelEvent>>();
    let (events_out, events) = builder.new_output::<Vec<CatalogEvent>>();
    let mut channels_out =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<ChannelEvent>>>::from(channels_out);
    let mut events_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<CatalogEvent>>>::from(events_out);
    let wake = worker.sync_activator_for(builder.operator_info().address.to_vec());
    let floor = checkpoint.frontier.unwrap_or(Tso::ZERO);
    let mut follow = Follow::new(checkpoint, entry);
    builder.build(move |mut capabilities| {
        let mut holds: Option<(Capability<Tso>, Capability<Tso>)> =
            match (capabilities.pop(), capabilities.pop()) {
                (Some(events), Some(channels)) => Some((channels.delayed(&floor), events.delayed(&floor))),
                _ => None,
            };
        move |_frontiers| {
            let Some((channels_cap, events_cap)) = holds.as_mut() else { return };
            let mut channels_out = channels_out.activate();
            let mut events_out = events_out.activate();
            while let Ok(update) = updates.try_recv() {
                shared.directory.set_ignored(Arc::clone(&update.ignored));
                let News { upto, begins, given_up, mut channels, mut events, .. } =
                    match follow.update(&update) {
                        Ok(news) => news,
                        Err(error) => {
                            shared.fail(error);
                            return;
                        }
                    };
                if let Some((channels, due)) = begins {
                    shared.progress.starts_with(channels, due);
                }
                for channel in given_up {
                    shared.progress.head_passed(&channel, upto);
                }
                if !channels.is_empty() {
                    channels_out.session(&channels_cap).give_container(&mut channels);
                }
                if !events.is_empty() {
                    events_out.session(&events_cap).give_container(&mut events);
                }
                if upto > *events_cap.time() {
                    channels_cap.downgrade(&upto);
                    events_cap.downgrade(&upto);
                }
            }
        }
    });
    (channels, events, wake)
}

/// What comes of an update.
#[derive(Debug)]
pub struct News {
    /// Up to when the catalog is complete, once the rest has been emitted.
    pub upto: Tso,
    /// The frontier by which all steps are released.
    pub due: Tso,
    /// With the first update: the channels that the pipeline starts with, and the frontier by which everything is done
    /// that the catalog had come to by then.
    pub begins: Option<(BTreeSet<PChannel>, Tso)>,
    /// Channels out of those that will not be read after all: their collections were dropped before.
    pub given_up: Vec<PChannel>,
    /// For `read`.
    pub channels: Vec<ChannelEvent>,
    /// For `order`.
    pub events: Vec<CatalogEvent>,
}

/// How the source's collections are taken in: where channels are begun that have no recorded position, and under which
/// names.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Those of collections that are there when the pipeline starts.
    pub start: StartAt,
    /// Single vchannels, in place of that.
    pub positions: BTreeMap<VChannel, MsgPosition>,
    /// Which names are one on the target.
    pub names: Names,
}

/// The logic of the operator.
pub struct Follow {
    entry: Entry,
    /// The frontier that the pipeline resumes from, or starts with.
    floor: Tso,
    begun: bool,
    /// Complete up to this.
    upto: Tso,
    emitted: Catalog,
    /// Collections that an earlier run had, and of which everything up to the floor is applied.
    known: BTreeSet<CollectionId>,
    wanted: Arc<Catalog>,
    /// Whether `emitted` equals `wanted`.
    settled: bool,
    positions: BTreeMap<PChannel, Position>,
    open: BTreeSet<PChannel>,
    /// Channels that the pipeline starts with and that are not open yet, since their collections are later than what the
    /// catalog is known to be complete up to.
    awaited: BTreeSet<PChannel>,
    /// Collections that were there and not selected: their rows may have been thrown away.
    seen_ignored: BTreeSet<CollectionId>,
    /// Whether an earlier run has got anywhere: then everything that was selected up to the floor is known.
    resumes: bool,
}

impl Follow {
    /// Goes on from `checkpoint`.
    pub fn new(checkpoint: &Checkpoint, entry: Entry) -> Follow {
        let floor = checkpoint.frontier.unwrap_or(Tso::ZERO);
        Follow {
            entry,
            floor,
            begun: false,
            upto: floor,
            emitted: checkpoint.applied.clone(),
            known: checkpoint.applied.collections.keys().copied().collect(),
            wanted: Arc::default(),
            settled: false,
            positions: checkpoint.positions.clone(),
            open: BTreeSet::new(),
            awaited: BTreeSet::new(),
            seen_ignored: BTreeSet::new(),
            resumes: checkpoint.frontier.is_some() && checkpoint.frontier != checkpoint.began,
        }
    }

    /// A collection that was not selected, and is now since it has got another name, lacks the rows that were not taken.
    fn refuse_what_comes_too_late(&self, initial: bool) -> Result<()> {
        let is_late = |collection: &&Collection| {
            let before = initial && self.resumes && collection.created < self.floor;
            !self.emitted.collections.contains_key(&collection.id)
                && (before || self.seen_ignored.contains(&collection.id))
        };
        let Some(late) = self.wanted.collections.values().find(is_late) else { return Ok(()) };
        let message = format!(
            "the source's collection {} (id {}) was not selected before: it got a name that is, and its earlier rows were not taken",
            late.name, late.id
        );
        Err(Error::new(Kind::Refused, message).hint(
            "give it back the name that it had, or leave it out in [select] of a new pipeline (name and state_dir)",
        ))
    }

    /// Takes an update.
    pub fn update(&mut self, update: &CatalogUpdate) -> Result<News> {
        let mut channels = Vec::new();
        let mut events = Vec::new();
        if let Some(wanted) = &update.wanted {
            self.wanted = Arc::clone(wanted);
            self.settled = false;
        }
        let initial = !self.begun;
        if initial {
            self.begun = true;
            for collection in self.emitted.collections.values() {
                events.push(CatalogEvent::Known(Arc::new(collection.clone())));
            }
            let known: Vec<Collection> = self
                .wanted
                .collections
                .values()
                .filter(|c| self.emitted.collections.contains_key(&c.id))
                .cloned()
                .collect();
            self.open_channels(known.iter(), true, &mut channels);
            if self.wanted.access.is_none() {
                // It is not followed in this run.
                self.emitted.access = None;
            }
        }
        self.refuse_what_comes_too_late(initial)?;
        self.seen_ignored.extend(update.ignored.iter().copied());
        if let Some(upto) = update.upto {
            self.upto = upto.max(self.upto);
        }
        if self.ticks_may_have_ended() {
            let times = &update.drop_times;
            let dropped =
                times.collections.values().chain(times.partitions.values()).chain(times.renames.values());
            self.upto = dropped.copied().fold(latest(&self.wanted).max(self.upto), Tso::max);
        }
        if self.settled && !initial {
            return Ok(News {
                upto: self.upto,
                due: self.upto,
                begins: None,
                given_up: Vec::new(),
                channels,
                events,
            });
        }
        let observed = Observed {
            wanted: &self.wanted,
            upto: self.upto,
            ignored: &update.ignored,
            other_databases: &update.other_databases,
            drop_times: &update.drop_times,
            names: &self.entry.names,
        };
        let steps = difference(&self.emitted, &observed)?;
        let has_steps = !steps.is_empty();
        let mut created: Vec<Arc<Collection>> = Vec::new();
        for (ts, ddl) in steps {
            applied_after(&mut self.emitted, &ddl);
            match &ddl {
                Ddl::CreateCollection(collection) => created.push(Arc::clone(collection)),
                Ddl::DropCollection { id, .. } => self.retire_channels(*id, ts, &mut channels),
                _ => {}
            }
            events.push(CatalogEvent::Step { ts, ddl });
        }
        self.open_channels(created.iter().map(|collection| &**collection), initial, &mut channels);
        self.settled = self.emitted == *self.wanted;
        // Steps stand at `upto` at the latest, and are released once the frontier has passed that: by the next tick,
        // or where there are none, right away.
        let after = if has_steps { self.upto.succ() } else { self.upto };
        if self.open.is_empty() {
            self.upto = after;
        }
        let begins = initial.then(|| self.begins(&update.drop_times, after));
        let given_up = self.given_up();
        Ok(News { upto: self.upto, due: after, begins, given_up, channels, events })
    }

    /// Whether no channel is read, or one that none of the source's collections is on any more.
    fn ticks_may_have_ended(&self) -> bool {
        self.open.is_empty() || !self.open.is_subset(&self.wanted_channels())
    }

    /// The channels that collections of the source are on.
    fn wanted_channels(&self) -> BTreeSet<PChannel> {
        let vchannels = self.wanted.collections.values().flat_map(|collection| &collection.vchannels);
        vchannels.map(|vchannel| vchannel.pchannel()).collect()
    }

    /// What "caught up" has to wait for: also for collections that were made, and things that were dropped, later than
    /// the frontier that the pipeline resumes from.
    fn begins(&mut self, drop_times: &DropTimes, after: Tso) -> (BTreeSet<PChannel>, Tso) {
        let mut channels = self.wanted_channels();
        self.awaited = channels.difference(&self.open).cloned().collect();
        channels.extend(self.open.iter().cloned());
        let dropped = drop_times.collections.values().chain(drop_times.partitions.values());
        let dropped = dropped.chain(drop_times.renames.values()).copied();
        (channels, dropped.fold(latest(&self.wanted).max(after), Tso::max))
    }

    fn given_up(&mut self) -> Vec<PChannel> {
        let open = &self.open;
        self.awaited.retain(|channel| !open.contains(channel));
        if self.awaited.is_empty() {
            return Vec::new();
        }
        let wanted = self.wanted_channels();
        self.awaited.extract_if(.., |channel| !wanted.contains(channel)).collect()
    }

    /// Opens the channels of `collections` that are not open: where the last run left them, otherwise at the earliest of
    /// the places where their vchannels begin.
    fn open_channels<'a>(
        &mut self,
        collections: impl Iterator<Item = &'a Collection>,
        initial: bool,
        events: &mut Vec<ChannelEvent>,
    ) {
        let closed: BTreeSet<PChannel> = collections
            .flat_map(|collection| &collection.vchannels)
            .map(VChannel::pchannel)
            .filter(|channel| !self.open.contains(channel))
            .collect();
        let mut starts: BTreeMap<PChannel, (Tso, Start)> = BTreeMap::new();
        // Also those that are not there yet: after a crash a collection may be older than one that was brought about before
        // it, and the channel will be open by its time.
        let wanted = Arc::clone(&self.wanted);
        for collection in wanted.collections.values() {
            for vchannel in &collection.vchannels {
                let channel = vchannel.pchannel();
                if !closed.contains(&channel) {
                    continue;
                }
                let start = self.start_of(collection, vchannel, &channel, initial);
                starts
                    .entry(channel)
                    .and_modify(|earliest| {
                        if start.0 < earliest.0 {
                            *earliest = start.clone();
                        }
                    })
                    .or_insert(start);
            }
        }
        for (channel, (_, start)) in starts {
            let start = self.positions.remove(&channel).map_or(start, Start::At);
            self.open.insert(channel.clone());
            let initial = initial || self.awaited.contains(&channel);
            events.push(ChannelEvent::Open { channel, start, initial });
        }
    }

    /// Where a vchannel begins that was never read: from when on, and the place. Places are opaque; but of two in one
    /// topic, the one of the earlier time has everything after itself that the other one has.
    fn start_of(
        &self,
        collection: &Collection,
        vchannel: &VChannel,
        channel: &PChannel,
        initial: bool,
    ) -> (Tso, Start) {
        // A channel without a position has had no tick up to F, so its collections were made just before F; or the state was
        // rewound, which forgets positions.
        if self.known.contains(&collection.id) && collection.created.after(CLOCK_SLACK) < self.floor {
            return (self.floor, Start::Near(self.floor));
        }
        if let Some(MsgPosition { position, time }) = self.entry.positions.get(vchannel) {
            return (*time, Start::At(position.clone()));
        }
        match self.entry.start {
            StartAt::Latest | StartAt::After(_) if collection.created <= self.floor => {
                (self.floor, Start::Near(self.floor))
            }
            StartAt::Earliest if initial => (Tso::ZERO, Start::Earliest),
            // The collection's creation stands there, and everything of it behind.
            _ => match collection.start_positions.get(channel) {
                Some(position) => (collection.created, Start::At(position.clone())),
                None => (Tso::ZERO, Start::Earliest),
            },
        }
    }

    /// Retires the channels that carried nothing selected but this collection.
    fn retire_channels(&mut self, dropped: CollectionId, at: Tso, events: &mut Vec<ChannelEvent>) {
        let mut used: BTreeSet<PChannel> = BTreeSet::new();
        for collection in self.emitted.collections.values().chain(self.wanted.collections.values()) {
            if collection.id != dropped {
                used.extend(collection.vchannels.iter().map(|vchannel| vchannel.pchannel()));
            }
        }
        let unused: Vec<PChannel> = self.open.difference(&used).cloned().collect();
        for channel in unused {
            self.open.remove(&channel);
            events.push(ChannelEvent::Retire { channel, at });
        }
    }
}

/// The latest creation in a catalog.
fn latest(catalog: &Catalog) -> Tso {
    let collections = catalog.collections.values().flat_map(|collection| {
        collection.partitions.values().map(|partition| partition.created).chain([collection.created])
    });
    let databases = catalog.databases.values().map(|database| database.created);
    let aliases = catalog.aliases.values().map(|alias| alias.changed);
    collections.chain(databases).chain(aliases).max().unwrap_or(Tso::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::catalog::{CollectionName, Partition, PartitionId, Schema};

    fn collection(id: i64, created: u64, channels: &[&str]) -> Collection {
        let named = |name: &&str| (PChannel((*name).into()), Position(vec![u8::try_from(created).unwrap()]));
        Collection {
            id: CollectionId(id),
            name: CollectionName { database: "default".into(), collection: format!("c{id}") },
            created: Tso(created),
            schema: Schema { description: String::new(), dynamic: false, fields: Vec::new() },
            shards: 1,
            consistency_level: 0,
            properties: BTreeMap::new(),
            vchannels: channels.iter().map(|name| VChannel(format!("{name}_{id}v0").into())).collect(),
            start_positions: channels.iter().map(named).collect(),
            partitions: BTreeMap::from([(
                PartitionId(id),
                Partition { name: "_default".into(), created: Tso(created) },
            )]),
            indexes: BTreeMap::new(),
            load: None,
        }
    }

    fn update(upto: Option<u64>, collections: &[Collection]) -> CatalogUpdate {
        let collections = collections.iter().map(|collection| (collection.id, collection.clone())).collect();
        let wanted = Catalog { collections, ..Catalog::default() };
        CatalogUpdate {
            upto: upto.map(Tso),
            wanted: Some(Arc::new(wanted)),
            ignored: Arc::default(),
            other_databases: Arc::default(),
            drop_times: Arc::default(),
        }
    }

    fn open(channel: &str, position: u8, initial: bool) -> ChannelEvent {
        ChannelEvent::Open {
            channel: PChannel(channel.into()),
            start: Start::At(Position(vec![position])),
            initial,
        }
    }

    #[test]
    fn a_shared_channel_is_opened_once_where_the_oldest_collection_begins() {
        let mut follow = Follow::new(&Checkpoint::default(), Entry::default());
        let news = follow
            .update(&update(None, &[collection(2, 20, &["a", "b"]), collection(1, 10, &["a"])]))
            .unwrap();
        assert_eq!(news.channels, [open("a", 10, true), open("b", 20, true)]);
        assert_eq!(news.upto, Tso(20), "without ticks the latest creation is the frontier");
        assert_eq!(news.due, Tso(21), "the steps stand at the frontier, and are released once it is passed");
        let news = follow
            .update(&update(Some(50), &[collection(1, 10, &["a"]), collection(2, 20, &["a", "b"])]))
            .unwrap();
        assert_eq!((news.channels.len(), news.events.len(), news.due), (0, 0, Tso(50)));
    }

    #[test]
    fn a_resumed_channel_goes_on_where_it_was() {
        let mut checkpoint = Checkpoint { frontier: Some(Tso(100)), ..Checkpoint::default() };
        checkpoint.applied.collections.insert(CollectionId(1), collection(1, 10, &["a"]));
        checkpoint.positions.insert(PChannel("a".into()), Position(vec![77]));
        let mut follow = Follow::new(&checkpoint, Entry::default());
        let news = follow.update(&update(None, &[collection(1, 10, &["a"])])).unwrap();
        assert_eq!(news.channels, [open("a", 77, true)]);
        assert!(matches!(news.events[..], [CatalogEvent::Known(_)]), "{:?}", news.events);
        assert_eq!(news.due, Tso(100), "nothing is to be waited for");
    }

    #[test]
    fn after_a_rewind_channels_are_found_again_near_the_time() {
        let floor = Tso(10).after(CLOCK_SLACK).succ();
        let mut checkpoint = Checkpoint { frontier: Some(floor), ..Checkpoint::default() };
        for (id, created, channel) in [(1, 10, "a"), (2, 60, "b")] {
            let mut collection = collection(id, created, &[channel]);
            if id == 2 {
                collection.created = floor.succ();
            }
            checkpoint.applied.collections.insert(CollectionId(id), collection);
        }
        let entry = |start| Entry {
            start,
            positions: BTreeMap::from([(
                VChannel("a_1v0".into()),
                MsgPosition { position: Position(vec![5]), time: Tso(5) },
            )]),
            names: Names::default(),
        };
        let wanted: Vec<Collection> = checkpoint.applied.collections.values().cloned().collect();
        for start in [StartAt::Collection, StartAt::Latest] {
            let news = Follow::new(&checkpoint, entry(start)).update(&update(None, &wanted)).unwrap();
            let near = ChannelEvent::Open {
                channel: PChannel("a".into()),
                start: Start::Near(floor),
                initial: true,
            };
            assert_eq!(news.channels, [near, open("b", 60, true)], "what is later is read whole");
        }
    }

    #[test]
    fn a_channel_that_had_no_tick_yet_when_it_was_committed_is_begun_where_it_begins() {
        let mut checkpoint = Checkpoint { frontier: Some(Tso(50)), ..Checkpoint::default() };
        let made = [collection(1, 49, &["a"]), collection(2, 50, &["b"])];
        checkpoint.applied.collections.extend(made.clone().map(|collection| (collection.id, collection)));
        let news = Follow::new(&checkpoint, Entry::default()).update(&update(None, &made)).unwrap();
        assert_eq!(news.channels, [open("a", 49, true), open("b", 50, true)]);
    }

    #[test]
    fn what_was_made_while_nobody_watched_is_part_of_catching_up() {
        let mut checkpoint = Checkpoint { frontier: Some(Tso(100)), ..Checkpoint::default() };
        checkpoint.applied.collections.insert(CollectionId(1), collection(1, 10, &["a"]));
        checkpoint.positions.insert(PChannel("a".into()), Position(vec![77]));
        let mut follow = Follow::new(&checkpoint, Entry::default());
        let (old, new) = (collection(1, 10, &["a"]), collection(2, 150, &["b", "c"]));
        let news = follow.update(&update(None, &[old.clone(), new.clone()])).unwrap();
        assert_eq!(news.channels, [open("a", 77, true)], "the catalog is known to be complete up to 100");
        let (channels, due) = news.begins.unwrap();
        assert_eq!(channels, ["a", "b", "c"].map(|name| PChannel(name.into())).into());
        assert_eq!(due, Tso(150), "its creation has to be applied too");
        let mut dropped = Follow::new(&checkpoint, Entry::default());
        dropped.update(&update(None, &[old.clone(), new.clone()])).unwrap();
        let news = follow.update(&update(Some(160), &[old.clone(), new])).unwrap();
        assert_eq!(news.channels, [open("b", 150, true), open("c", 150, true)]);
        assert_eq!(news.given_up, []);
        let news = dropped.update(&update(Some(160), &[old])).unwrap();
        assert_eq!(
            news.given_up,
            ["b", "c"].map(|name| PChannel(name.into())),
            "nobody has to wait for them"
        );
    }

    #[test]
    fn a_pipeline_begins_where_it_is_told_to() {
        let at = Some(Tso(50));
        let mut begun = Checkpoint { frontier: at, began: at, ..Checkpoint::default() };
        let start = |checkpoint: &Checkpoint, start, positions: &[(&str, u64)]| {
            let positions = positions.iter().map(|(name, time)| {
                let position = Position(vec![99]);
                (VChannel((*name).into()), MsgPosition { position, time: Tso(*time) })
            });
            let mut follow =
                Follow::new(checkpoint, Entry { start, positions: positions.collect(), ..Entry::default() });
            let collections = [collection(1, 10, &["a", "b"]), collection(2, 60, &["b", "c"])];
            let mut opened = follow.update(&update(None, &collections)).unwrap().channels;
            opened.extend(
                follow
                    .update(&update(Some(90), &[collection(3, 80, &["d"])]))
                    .unwrap()
                    .channels
                    .into_iter()
                    .filter(|event| matches!(event, ChannelEvent::Open { .. })),
            );
            opened
                .into_iter()
                .map(|event| match event {
                    ChannelEvent::Open { channel, start: Start::At(at), .. } => {
                        format!("{channel}@{}", at.0[0])
                    }
                    ChannelEvent::Open { channel, start, .. } => format!("{channel} {start:?}"),
                    ChannelEvent::Retire { .. } => String::new(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(start(&begun, StartAt::Collection, &[]), ["a@10", "b@10", "c@60", "d@80"]);
        assert_eq!(start(&begun, StartAt::Earliest, &[]), ["a Earliest", "b Earliest", "c Earliest", "d@80"]);
        let near = ["a Near(Tso(50))", "b Near(Tso(50))", "c@60", "d@80"];
        assert_eq!(start(&begun, StartAt::After(Tso(50)), &[]), near, "later collections are taken whole");
        assert_eq!(start(&begun, StartAt::Latest, &[]), near);
        let explicit = start(&begun, StartAt::Collection, &[("b_1v0", 70), ("b_2v0", 65), ("a_1v0", 5)]);
        assert_eq!(explicit, ["a@99", "b@99", "c@60", "d@80"], "the earlier of two on one channel");
        begun.positions.insert(PChannel("a".into()), Position(vec![7]));
        let resumed = start(&begun, StartAt::Earliest, &[("a_1v0", 5)]);
        assert_eq!(resumed, ["a@7", "b Earliest", "c Earliest", "d@80"], "what was reached wins");
    }

    #[test]
    fn a_channel_is_retired_with_its_last_collection_and_not_before() {
        let mut follow = Follow::new(&Checkpoint::default(), Entry::default());
        let (one, two) = (collection(1, 10, &["a", "b"]), collection(2, 20, &["a"]));
        follow.update(&update(None, &[one, two.clone()])).unwrap();
        let news = follow.update(&update(Some(60), std::slice::from_ref(&two))).unwrap();
        assert_eq!(news.channels, [ChannelEvent::Retire { channel: PChannel("b".into()), at: Tso(60) }]);
        let news = follow.update(&update(Some(70), &[])).unwrap();
        assert_eq!(news.channels, [ChannelEvent::Retire { channel: PChannel("a".into()), at: Tso(70) }]);
    }
}
