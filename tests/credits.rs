//! The memory budget under random loads: it is kept, and it never gets stuck.
//!
//! A model of what surrounds it: channels whose topics hold messages and ticks, some of which stall for a while; an order
//! that keeps messages until every channel has passed their time; a target that takes released messages one by one.

use std::collections::VecDeque;

use migrans::dataflow::credits::{Credit, Credits};
use migrans::milvus::channel::PChannel;
use proptest::prelude::*;

/// One entry of a topic.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// A message of so many bytes.
    Message(u64),
    /// The next tick: time moves on by one.
    Tick,
}

#[derive(Clone, Debug)]
struct Topic {
    entries: Vec<Entry>,
    /// It gives nothing from this step on …
    stalls_at: usize,
    /// … for so many steps.
    stalls_for: usize,
}

fn topics() -> impl Strategy<Value = Vec<Topic>> {
    let entry = prop_oneof![
        3 => (1_u64..2_000).prop_map(Entry::Message),
        1 => (2_000_u64..30_000).prop_map(Entry::Message),
        2 => Just(Entry::Tick),
    ];
    let topic = (prop::collection::vec(entry, 0..120), 0..300_usize, 0..400_usize)
        .prop_map(|(entries, stalls_at, stalls_for)| Topic { entries, stalls_at, stalls_for });
    prop::collection::vec(topic, 1..8)
}

struct Channel {
    name: PChannel,
    entries: VecDeque<Entry>,
    /// Its last tick.
    tick: u64,
    stall: std::ops::Range<usize>,
}

/// The most bytes between two ticks, over all topics: what starved laggards may bring in beyond the budget, one after the
/// other, until the frontier has moved by one tick.
fn largest_tick(topics: &[Topic]) -> u64 {
    let of_topic = |topic: &Topic| {
        let (mut most, mut sum) = (0, 0);
        for entry in &topic.entries {
            match entry {
                Entry::Message(bytes) => sum += bytes,
                Entry::Tick => sum = 0,
            }
            most = sum.max(most);
        }
        most
    };
    topics.iter().map(of_topic).sum()
}

/// Plays the topics to their ends; says how it went wrong if it did.
fn play(budget: u64, topics: &[Topic]) -> Result<(), String> {
    let credits = Credits::new(budget);
    let mut channels: Vec<Channel> = topics
        .iter()
        .enumerate()
        .map(|(at, topic)| Channel {
            name: PChannel(format!("c{at}").into()),
            entries: topic.entries.iter().copied().collect(),
            tick: 0,
            stall: topic.stalls_at..topic.stalls_at + topic.stalls_for,
        })
        .collect();
    channels.iter().for_each(|channel| credits.open(&channel.name));
    let allowed = budget + largest_tick(topics);
    // Messages wait for their time, then for the target.
    let mut ordered: Vec<(u64, Credit)> = Vec::new();
    let mut released: VecDeque<Credit> = VecDeque::new();
    let mut idle_steps = 0;
    for step in 0.. {
        let stalled = |channel: &Channel| channel.stall.contains(&step);
        // An ended topic of a running source goes on to get ticks.
        let laggard =
            channels.iter().filter(|channel| !channel.entries.is_empty()).min_by_key(|channel| channel.tick);
        let Some(laggard) = laggard.map(|channel| channel.name.clone()) else { return Ok(()) };
        credits.set_laggard(Some(&laggard), released.is_empty());
        let mut moved = released.pop_front().is_some();
        for channel in channels.iter_mut().filter(|channel| !stalled(channel)) {
            match channel.entries.front() {
                None => {}
                Some(Entry::Tick) => {
                    channel.tick += 1;
                    channel.entries.pop_front();
                    moved = true;
                }
                Some(Entry::Message(bytes)) => {
                    if let Some(credit) = credits.try_take(&channel.name, *bytes) {
                        ordered.push((channel.tick + 1, credit));
                        channel.entries.pop_front();
                        moved = true;
                    }
                }
            }
        }
        if credits.held() > allowed {
            return Err(format!("step {step}: {} bytes are held, {allowed} are allowed", credits.held()));
        }
        let frontier =
            channels.iter().filter(|channel| !channel.entries.is_empty()).map(|channel| channel.tick).min();
        let frontier = frontier.unwrap_or(u64::MAX);
        let (due, kept) = ordered.drain(..).partition::<Vec<_>, _>(|(time, _)| *time <= frontier);
        ordered = kept;
        released.extend(due.into_iter().map(|(_, credit)| credit));
        let waiting_for_a_stall =
            channels.iter().any(|channel| stalled(channel) && !channel.entries.is_empty());
        idle_steps = if moved || waiting_for_a_stall { 0 } else { idle_steps + 1 };
        if idle_steps > 2 {
            return Err(format!("step {step}: nothing moves, {} of {budget} bytes are held", credits.held()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// INVARIANT 5
    #[test]
    fn the_budget_is_kept_and_never_gets_stuck(budget in 1_000_u64..40_000, topics in topics()) {
        play(budget, &topics).map_err(TestCaseError::fail)?;
    }

    /// One stalled channel leaves the others the pool and their own shares.
    #[test]
    fn a_stalled_channel_does_not_keep_the_others_from_the_budget(
        budget in 10_000_u64..1_000_000, channels in 2_usize..32, size in 1_u64..500,
    ) {
        let credits = Credits::new(budget);
        let names: Vec<PChannel> = (0..channels).map(|at| PChannel(format!("c{at}").into())).collect();
        names.iter().for_each(|name| credits.open(name));
        credits.set_laggard(Some(&names[0]), false);
        let mut held = Vec::new();
        while let Some(credit) = names[1..].iter().find_map(|name| credits.try_take(name, size)) {
            held.push(credit);
        }
        let share = budget / 2 / channels as u64;
        let usable = budget - budget / 4 - share;
        let crumbs = size * channels as u64;
        prop_assert!(credits.held() + crumbs > usable, "{} of {usable}", credits.held());
        let stalled = std::iter::from_fn(|| credits.try_take(&names[0], size)).collect::<Vec<_>>();
        let got = size * stalled.len() as u64;
        prop_assert!(got + crumbs > budget / 4 + share, "the stalled one finds room when it comes back: {got}");
    }
}

#[test]
fn a_message_larger_than_the_budget_passes() {
    let topic = |entries: &[Entry]| Topic { entries: entries.to_vec(), stalls_at: 0, stalls_for: 5 };
    let large = [Entry::Message(500_000), Entry::Tick, Entry::Message(10), Entry::Tick];
    let small = [Entry::Message(900), Entry::Tick, Entry::Message(900), Entry::Tick];
    play(1_000, &[topic(&large), topic(&small)]).unwrap();
}
