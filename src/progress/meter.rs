//! Rates, backlog and the lines of a display, from one snapshot to the next.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::rate::Window;
use super::{CollectionProgress, Snapshot, human};
use crate::milvus::tso::Tso;

/// Collections with a line of their own. More would leave the screen.
const SHOWN: usize = 12;

/// The longest name on a line.
const NAME_WIDTH: usize = 36;

/// The longest reason for waiting, which may be the words of a server.
const REASON_WIDTH: usize = 240;

/// Characters of the bar.
const BAR: usize = 24;

/// What rates are taken over.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// What the pace through the backlog is taken over: longer, as the log's density varies.
const PACE_SPAN: Duration = Duration::from_secs(30);

/// Follows the snapshots of one pipeline.
pub(super) struct Meter {
    began: Instant,
    total: Window,
    collections: HashMap<String, Window>,
    /// Milliseconds of the log per second.
    pace: Window,
    /// The first frontier that was seen: where the backlog began.
    start: Option<Tso>,
    previous: Instant,
}

/// What is to be read until the pipeline has reached the end that the log had when it started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Backlog {
    /// How much of it is done, in time of the log: 0 to 1.
    pub fraction: f64,
    /// When the rest will be done at the present pace; `None` if there is none.
    pub eta: Option<Duration>,
}

impl Meter {
    /// A meter of a pipeline that begins now.
    pub fn new(now: Instant) -> Meter {
        let mut total = Window::new(RATE_SPAN);
        total.record(now, 0.0);
        Meter {
            began: now,
            total,
            collections: HashMap::new(),
            pace: Window::new(PACE_SPAN),
            start: None,
            previous: now,
        }
    }

    /// Takes note of a snapshot.
    pub fn observe(&mut self, now: Instant, snapshot: &Snapshot) {
        self.total.record(now, snapshot.bytes() as f64);
        for collection in &snapshot.collections {
            let window = self.collections.entry(collection.name.clone()).or_insert_with(|| {
                let mut window = Window::new(RATE_SPAN);
                window.record(self.previous, 0.0);
                window
            });
            window.record(now, collection.bytes_written as f64);
        }
        if let Some(frontier) = frontier(snapshot) {
            self.start.get_or_insert(frontier);
            self.pace.record(now, frontier.millis() as f64);
        }
        self.previous = now;
    }

    /// The rate over all collections, once there is one.
    pub fn bytes_per_second(&self) -> Option<f64> {
        self.total.per_second()
    }

    /// What is left of the backlog, if there is one.
    pub fn backlog(&self, snapshot: &Snapshot) -> Option<Backlog> {
        let (start, frontier, head) = (self.start?, frontier(snapshot)?, snapshot.head?);
        if frontier >= head {
            return None;
        }
        let span = |from: Tso, to: Tso| to.millis().saturating_sub(from.millis()) as f64;
        let total = span(start, head);
        let pace = self.pace.per_second().filter(|pace| *pace > 0.0);
        Some(Backlog {
            fraction: if total > 0.0 { span(start, frontier) / total } else { 0.0 },
            eta: pace.and_then(|pace| Duration::try_from_secs_f64(span(frontier, head) / pace).ok()),
        })
    }

    /// The lines to show: the busiest collections by name, how many there are beside them, the total, and the state. They fit into 80 columns.
    pub fn lines(&self, snapshot: &Snapshot) -> Vec<String> {
        let shown = self.busiest(snapshot);
        let names: Vec<String> =
            shown.iter().map(|collection| human::shortened(&collection.name, NAME_WIDTH)).collect();
        let width = names.iter().map(|name| name.chars().count()).fold("total".len(), usize::max);
        let line = |name: &str, rows: u64, bytes: u64, rate: f64| {
            let (rows, bytes, rate) = (human::count(rows), human::bytes(bytes), human::rate(rate));
            format!("{name:<width$}  {rows:>13} rows  {bytes:>7}  {rate:>9}")
        };
        let mut lines = Vec::with_capacity(SHOWN + 5);
        for (collection, name) in shown.iter().zip(&names) {
            let rate = self.rate(collection);
            lines.push(line(name, collection.rows_written, collection.bytes_written, rate));
        }
        let more = snapshot.collections.len() - shown.len();
        if more > 0 {
            lines.push(format!("… and {} more", human::count(u64::try_from(more).unwrap_or(u64::MAX))));
        }
        lines.push(line(
            "total",
            snapshot.rows(),
            snapshot.bytes(),
            self.bytes_per_second().unwrap_or_default(),
        ));
        lines.push(self.state(snapshot));
        let (held, budget) = (human::bytes(snapshot.held_bytes), human::bytes(snapshot.budget));
        let elapsed = human::duration(self.previous.duration_since(self.began));
        let calls = snapshot.calls_in_flight;
        lines.push(format!("{held} of {budget} in use, calls in flight: {calls}, running for {elapsed}"));
        if let Some(reason) = &snapshot.waiting {
            let reason = reason.lines().collect::<Vec<_>>().join(" ");
            lines.push(format!("waiting: {}", human::shortened(&reason, REASON_WIDTH)));
        }
        lines
    }

    fn state(&self, snapshot: &Snapshot) -> String {
        let mut parts = Vec::new();
        match (self.backlog(snapshot), snapshot.lag) {
            (Some(backlog), lag) => {
                parts.push(format!("{} {:.0} %", bar(backlog.fraction), (backlog.fraction * 100.0).floor()));
                parts.push(match backlog.eta {
                    Some(eta) => format!("ETA {}", human::duration(eta)),
                    None => "ETA unknown".to_owned(),
                });
                parts.extend(lag.map(|lag| format!("lag {}", human::duration(lag))));
            }
            (None, Some(lag)) => parts.push(format!("lag {}", human::duration(lag))),
            (None, None) => parts.push("reading the source's catalog and log".to_owned()),
        }
        parts.join("  ")
    }

    fn rate(&self, collection: &CollectionProgress) -> f64 {
        self.collections.get(&collection.name).and_then(Window::per_second).unwrap_or_default()
    }

    /// At most [`SHOWN`] collections, by name, so that lines don't change places with every update.
    fn busiest<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s CollectionProgress> {
        let mut collections: Vec<&CollectionProgress> = snapshot.collections.iter().collect();
        if collections.len() > SHOWN {
            let mut ranked: Vec<(f64, u64, &str)> = collections
                .iter()
                .map(|collection| (self.rate(collection), collection.bytes_written, collection.name.as_str()))
                .collect();
            ranked.sort_by(|one, other| {
                other
                    .0
                    .total_cmp(&one.0)
                    .then_with(|| (Reverse(one.1), one.2).cmp(&(Reverse(other.1), other.2)))
            });
            let names: HashSet<&str> = ranked.iter().take(SHOWN).map(|(_, _, name)| *name).collect();
            collections.retain(|collection| names.contains(collection.name.as_str()));
        }
        collections.sort_by(|one, other| one.name.cmp(&other.name));
        collections
    }
}

/// The frontier, if it is one: zero stands for nothing known.
fn frontier(snapshot: &Snapshot) -> Option<Tso> {
    snapshot.frontier.filter(|frontier| *frontier > Tso::ZERO)
}

/// A bar of which so much is full.
pub(super) fn bar(fraction: f64) -> String {
    (0..BAR).map(|cell| if (cell as f64) < fraction * BAR as f64 { '█' } else { '░' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(name: &str, rows_written: u64, bytes_written: u64) -> CollectionProgress {
        CollectionProgress { name: name.to_owned(), rows_written, bytes_written }
    }

    fn snapshot(collections: Vec<CollectionProgress>) -> Snapshot {
        Snapshot { collections, budget: 256_000_000, ..Snapshot::default() }
    }

    #[test]
    fn lines_have_rows_bytes_rates_and_a_total() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut snapshot = snapshot(vec![
            collection("default.users", 10, 5_000_000),
            collection("default.orders", 1_234_567, 100_000_000),
        ]);
        snapshot.frontier = Some(Tso::from_millis(1_000_000));
        snapshot.head = Some(Tso::from_millis(2_000_000));
        snapshot.lag = Some(Duration::from_secs(3_700));
        snapshot.held_bytes = 120_000_000;
        snapshot.calls_in_flight = 3;
        meter.observe(start, &Snapshot { frontier: snapshot.frontier, ..Snapshot::default() });
        snapshot.frontier = Some(Tso::from_millis(1_250_000));
        meter.observe(start + Duration::from_secs(2), &snapshot);
        assert_eq!(
            meter.lines(&snapshot),
            [
                "default.orders      1,234,567 rows   100 MB    50 MB/s",
                "default.users              10 rows   5.0 MB   2.5 MB/s",
                "total               1,234,577 rows   105 MB    52 MB/s",
                "██████░░░░░░░░░░░░░░░░░░ 25 %  ETA 6.0 s  lag 1 h 01 min",
                "120 MB of 256 MB in use, calls in flight: 3, running for 2.0 s",
            ]
        );
        snapshot.frontier = snapshot.head;
        snapshot.lag = Some(Duration::from_millis(230));
        snapshot.waiting = Some("the target\nis out of memory".to_owned());
        meter.observe(start + Duration::from_secs(3), &snapshot);
        let lines = meter.lines(&snapshot);
        assert_eq!(lines[3], "lag 230 ms");
        assert_eq!(lines[5], "waiting: the target is out of memory");
    }

    #[test]
    fn only_the_busiest_collections_are_shown_by_name() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let many = |busy: &str| {
            let bytes = |name: &str| if name == busy { 9_000 } else { 100 };
            let names = (0..40).map(|number| format!("default.c{number:02}"));
            snapshot(names.map(|name| collection(&name, 1, bytes(&name))).collect())
        };
        meter.observe(start, &many(""));
        meter.observe(start + Duration::from_secs(1), &many("default.c33"));
        let lines = meter.lines(&many("default.c33"));
        assert_eq!(lines.len(), 16);
        assert!(lines[0].starts_with("default.c00 ") && lines[10].starts_with("default.c10 "), "{lines:#?}");
        assert!(lines[11].starts_with("default.c33 "), "{lines:#?}");
        assert_eq!(lines[12], "… and 28 more");
        assert!(lines[13].starts_with("total "), "{lines:#?}");
    }

    #[test]
    fn there_is_no_backlog_before_both_ends_are_known_or_after_the_head() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut snapshot = snapshot(Vec::new());
        snapshot.frontier = Some(Tso::ZERO);
        snapshot.head = Some(Tso::from_millis(5_000));
        meter.observe(start, &snapshot);
        assert_eq!(meter.backlog(&snapshot), None);
        assert!(meter.lines(&snapshot)[1].starts_with("reading the source's catalog and log"));
        snapshot.frontier = Some(Tso::from_millis(4_000));
        meter.observe(start, &snapshot);
        assert_eq!(meter.backlog(&snapshot), Some(Backlog { fraction: 0.0, eta: None }));
        meter.observe(start + Duration::from_secs(1), &snapshot);
        assert_eq!(meter.backlog(&snapshot).unwrap().eta, None);
        snapshot.frontier = snapshot.head;
        meter.observe(start + Duration::from_secs(2), &snapshot);
        assert_eq!(meter.backlog(&snapshot), None);
    }
}
