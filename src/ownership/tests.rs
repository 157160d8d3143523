//! Against a real etcd (of the distribution: testbed/install.sh).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etcd_client::{DeleteOptions, GetOptions, PutOptions};

use super::election::Candidate;
use super::term::Term;
use super::*;
use crate::dataflow::checkpoint::{RecordChange, Records, Storage, records};
use crate::error::{Error, Kind};
use crate::etcd::testing::Etcd;
use crate::pipeline::Pipeline;

const SOON: Duration = Duration::from_secs(20);

/// An etcd, and a way to look into it.
struct Place {
    etcd: Etcd,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Place {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Place { etcd: runtime.block_on(Etcd::start()), runtime }
    }

    fn pipeline(&self, target: &str) -> Pipeline {
        let text = format!(
            "name = \"orders\"\nstate_dir = \"/state\"\n[source]\netcd = [\"http://127.0.0.1:2379\"]\n[source.mq]\n\
             type = \"rocksmq\"\npath = \"/rdb\"\n[select]\ncollections = [\"default.*\"]\n[target]\ntype = \"milvus\"\n\
             uri = \"http://{target}:19530\"\n[ownership]\netcd = [\"{}\"]\nttl = \"2s\"\nsettle = \"1s\"\n",
            self.etcd.address()
        );
        Pipeline::parse(&text, Path::new("p.toml"), &|_| None).unwrap()
    }

    fn candidate(&self) -> Candidate {
        Candidate::new(&self.pipeline("target")).unwrap().unwrap()
    }

    fn claim(&self) -> Term {
        self.candidate().claim(&self.pipeline("target")).unwrap()
    }

    fn keys(&self) -> Vec<(String, Vec<u8>)> {
        let found = self.runtime.block_on(async {
            let mut client = self.etcd.client().await.unwrap();
            client.get("/migrans/", Some(GetOptions::new().with_prefix())).await.unwrap().take_kvs()
        });
        found.into_iter().map(|kv| (kv.key_str().unwrap().to_owned(), kv.value().to_vec())).collect()
    }

    fn put(&self, key: &str, value: &[u8]) {
        self.runtime.block_on(async {
            let mut client = self.etcd.client().await.unwrap();
            client.put(format!("/migrans/orders/{key}"), value, Some(PutOptions::new())).await.unwrap();
        });
    }

    /// What an owner that was silent for too long meets with.
    fn end_ownership(&self) {
        self.runtime.block_on(async {
            let mut client = self.etcd.client().await.unwrap();
            let owner = client.get("/migrans/orders/owner", None).await.unwrap();
            client.lease_revoke(owner.kvs()[0].lease()).await.unwrap();
        });
    }
}

fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < SOON, "it did not come to that");
        thread::sleep(Duration::from_millis(10));
    }
}

fn put(key: &str, value: Vec<u8>) -> RecordChange {
    RecordChange::Put(key.to_owned(), value)
}

fn open(term: &Term) -> Records {
    term.replica().unwrap().1
}

#[test]
fn one_owns_it_and_the_other_follows_at_once_after_a_release() {
    let place = Place::new();
    let first = place.claim();
    assert!(first.settles_in().is_none(), "there was no owner before");
    let refused = place.candidate().claim(&place.pipeline("target")).err().unwrap();
    assert_eq!(refused.kind(), Kind::Ownership);
    assert!(refused.message().contains(&format!("process {}", std::process::id())), "{refused}");

    let (candidate, pipeline) = (place.candidate(), place.pipeline("target"));
    let fence = candidate.fence();
    let stop = AtomicBool::new(false);
    let seen = Arc::new(AtomicBool::new(false));
    let second = thread::scope(|scope| {
        let seen_too = Arc::clone(&seen);
        let standby = scope.spawn(|| {
            candidate.stand_by(&pipeline, &stop, move |standing| {
                assert!(matches!(standing, Standing::By(Some(owner)) if owner.pid == std::process::id()));
                seen_too.store(true, Ordering::Release);
            })
        });
        until(|| seen.load(Ordering::Acquire));
        let (released, epoch) = (Instant::now(), first.epoch());
        first.release();
        let second = standby.join().unwrap().unwrap().unwrap();
        assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
        assert!(second.epoch() > epoch);
        second
    });
    assert!(second.settles_in().unwrap() <= Duration::from_secs(1));
    // Signs of life carry it over several of its leases.
    thread::sleep(Duration::from_secs(5));
    assert!(fence.check().is_ok() && second.lost().is_none());
    assert!(matches!(second.standing(), Standing::Owner { trouble: None, .. }));
}

#[test]
fn one_that_stands_by_ends_when_it_is_told_to() {
    let place = Place::new();
    let _owner = place.claim();
    let stop = AtomicBool::new(false);
    let term = place.candidate().stand_by(&place.pipeline("target"), &stop, |_| {
        stop.store(true, Ordering::Release);
    });
    assert!(term.unwrap().is_none());
}

#[test]
fn an_owner_that_gives_no_sign_of_life_is_followed_after_its_lease() {
    let place = Place::new();
    let first = place.claim();
    let died = Instant::now();
    drop(first);
    let stop = AtomicBool::new(false);
    let second = place.candidate().stand_by(&place.pipeline("target"), &stop, |_| {}).unwrap().unwrap();
    let took = died.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    assert!(second.settles_in().unwrap() > Duration::ZERO);
}

#[test]
fn a_former_owner_changes_nothing_and_says_whose_it_is() {
    let place = Place::new();
    let first = place.claim();
    let (mut old, records) = first.replica().unwrap();
    assert!(records.is_empty());
    old.write(&[put("a", b"1".to_vec())]).unwrap();
    place.end_ownership();
    let second = place.claim();
    let before = place.keys();
    let error = old.write(&[put("a", b"2".to_vec())]).unwrap_err();
    assert_eq!(error.kind(), Kind::Ownership);
    assert!(error.message().contains("it is now that of process"), "{error}");
    assert!(first.lost().is_some());
    assert_eq!(place.keys(), before);
    assert_eq!(open(&second), Records::from([("a".to_owned(), b"1".to_vec())]));
}

#[test]
fn a_lost_lease_closes_the_fence_by_itself() {
    let place = Place::new();
    let candidate = place.candidate();
    let fence = candidate.fence();
    let term = candidate.claim(&place.pipeline("target")).unwrap();
    assert!(fence.check().is_ok());
    place.end_ownership();
    until(|| term.lost().is_some());
    assert_eq!(fence.check(), Err(Closed));
    assert!(term.lost().unwrap().message().contains("nobody has taken it over yet"));
}

#[test]
fn an_outage_stops_it_before_the_lease_ends_and_it_goes_on_after() {
    let mut place = Place::new();
    let candidate = place.candidate();
    let fence = candidate.fence();
    let term = candidate.claim(&place.pipeline("target")).unwrap();
    let (mut replica, _) = term.replica().unwrap();
    place.etcd.kill();
    let killed = Instant::now();
    assert!(fence.check().is_ok(), "a moment does not matter");
    let writing = thread::spawn(move || replica.write(&[put("a", b"1".to_vec())]).map(|()| replica));
    until(|| fence.check().is_err());
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert!(term.lost().is_none());
    assert!(matches!(term.standing(), Standing::Owner { trouble: Some(_), .. }));
    assert!(!writing.is_finished(), "the checkpoint waits");
    place.runtime.block_on(place.etcd.start_again());
    until(|| fence.check().is_ok());
    writing.join().unwrap().unwrap();
    assert_eq!(open(&term), Records::from([("a".to_owned(), b"1".to_vec())]));
}

#[test]
fn a_run_that_ends_does_not_wait_for_the_etcd() {
    let mut place = Place::new();
    let term = place.claim();
    let (mut replica, _) = term.replica().unwrap();
    place.etcd.kill();
    term.close();
    let error = replica.write(&[put("a", b"1".to_vec())]).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn records_of_every_number_and_length_come_back() {
    let place = Place::new();
    let term = place.claim();
    let (mut replica, _) = term.replica().unwrap();
    let mut wanted = Records::new();
    let mut write = |changes: Vec<RecordChange>| {
        replica.write(&changes).unwrap();
        records::apply(&mut wanted, &changes);
        assert_eq!(open(&term), wanted);
    };
    write((0..700).map(|i| put(&format!("position/{i}"), vec![b'x'; i])).collect());
    let long = |length: usize, with: u8| (0..length).map(|i| with ^ i.to_le_bytes()[1]).collect::<Vec<u8>>();
    write(vec![put("collection/1", long(3 << 20, 1)), put("collection/2", long(600 << 10, 2))]);
    // Shorter, longer, gone, and all positions replaced by others in one go.
    write(vec![
        put("collection/1", long(1200 << 10, 3)),
        put("collection/2", b"short".to_vec()),
        RecordChange::Clear("position/".into()),
        put("position/3", b"again".to_vec()),
    ]);
    write(vec![RecordChange::Delete("collection/1".into())]);
    write(vec![RecordChange::Delete("no such".into())]);
    let left: Vec<String> = place.keys().into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        left,
        ["commit", "owner", "record/collection/2", "record/position/3", "term"]
            .map(|key| format!("/migrans/orders/{key}"))
    );
}

#[test]
fn a_large_commit_that_is_cut_short_is_whole_or_not_there() {
    let place = Place::new();
    let before: Vec<RecordChange> =
        (0..300).map(|i| put(&format!("position/{i:03}"), b"old".to_vec())).collect();
    let after: Vec<RecordChange> = (0..300)
        .map(|i| put(&format!("position/{i:03}"), b"new".to_vec()))
        .chain([put("collection/1", vec![7; 1500 << 10])])
        .collect();
    let mut outcomes = Vec::new();
    for transactions in 0.. {
        let term = place.claim();
        let (mut replica, _) = term.replica().unwrap();
        replica.write(&[RecordChange::Clear(String::new())]).unwrap();
        replica.write(&before).unwrap();
        replica.fail_after(transactions);
        let done = replica.write(&after).is_ok();
        drop(replica);
        place.end_ownership();
        drop(term);
        let next = place.claim();
        let found = open(&next);
        let all = |changes: &[RecordChange]| {
            let mut records = Records::new();
            records::apply(&mut records, changes);
            records == found
        };
        assert!(all(&before) || all(&after), "cut after {transactions} transactions it is neither");
        outcomes.push(all(&after));
        assert!(!place.keys().iter().any(|(key, _)| key.contains("/journal/")), "nothing is left behind");
        next.release();
        if done {
            break;
        }
    }
    assert!(outcomes.is_sorted() && !outcomes[0] && outcomes.len() > 6, "{outcomes:?}");
    assert!(!outcomes[outcomes.len() - 3..].contains(&false), "{outcomes:?}");
}

#[test]
fn a_standby_of_another_definition_is_refused() {
    let place = Place::new();
    let term = place.claim();
    let (mut replica, _) = term.replica().unwrap();
    let pipeline = place.pipeline("target");
    let folder = tempfile::tempdir().unwrap();
    let mut store = crate::dataflow::checkpoint::Store::open(folder.path()).unwrap();
    let records = crate::dataflow::checkpoint::load(&mut store, &pipeline).unwrap();
    let changes: Vec<RecordChange> = records.into_iter().map(|(key, value)| put(&key, value)).collect();
    replica.write(&changes).unwrap();
    place.candidate().check_definition(&pipeline).unwrap();
    let error = place.candidate().check_definition(&place.pipeline("other")).unwrap_err();
    assert_eq!(error.kind(), Kind::Checkpoint);
    assert!(
        error.message().contains("[target] was") && error.message().contains("/migrans/orders/"),
        "{error}"
    );
}

#[test]
fn keys_of_another_program_are_refused() {
    let place = Place::new();
    place.put("term", b"what?");
    let claimed = |place: &Place| -> Error {
        place.candidate().claim(&place.pipeline("target")).and_then(|term| term.replica()).err().unwrap()
    };
    assert!(claimed(&place).message().contains("is not of migrans"));
    place.runtime.block_on(async {
        let all = DeleteOptions::new().with_prefix();
        place.etcd.client().await.unwrap().delete("/migrans/", Some(all)).await.unwrap();
    });
    place.claim().release();
    place.put("commit", b"many");
    assert!(claimed(&place).message().contains("is not as migrans left it"));
}

#[test]
fn nothing_is_left_of_a_pipeline_that_is_removed() {
    let place = Place::new();
    place.claim().release();
    let removed = place.claim().remove().unwrap().unwrap();
    assert!(removed.contains("/migrans/orders/"), "{removed}");
    assert_eq!(place.keys(), []);
    assert_eq!(place.claim().remove().unwrap(), None);
}
