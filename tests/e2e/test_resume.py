"""Stopping and starting: at any moment, in any way, and the target ends up exactly as if nothing had happened."""

import random
import threading
import time

import pytest
from conftest import rows_at, until, wait_for_key, wait_for_rows

from testbed import Workload, all_types, plain
from testbed.client import EVENTUALLY

once = pytest.mark.only("rocksmq", reason="nothing in it depends on where the messages come from")
BACKLOG = 80_000  # rows of 128 dimensions: 41 MB


def test_nothing_to_do(scene):
    """A second run with nothing new applies nothing, and the frontier does not go back."""
    t = scene.table("once", plain()).create(load=True)
    t.insert(500)
    migrans = scene.migrans()
    first = migrans.run_until_caught_up()
    second = migrans.run_until_caught_up()
    assert first["rows"]["inserted"] == 500
    assert sum(second["rows"].values()) == 0
    assert second["frontier"] >= first["frontier"]
    scene.compare()


def test_stop_in_the_middle_of_a_backlog(scene):
    """SIGTERM ends it with 0 within ten seconds; the next start goes on where it was."""
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(BACKLOG)
    # Small batches, one at a time: slow enough to be stopped in the middle.
    migrans = scene.migrans(settings={"delivery.memory": "64MiB", "delivery.batch": "64KiB", "delivery.max_calls": 1})
    seen = []
    for _ in range(2):
        migrans.run()
        until(lambda: "create collection" in migrans.said() and migrans.said().count("pipeline=") > len(seen), 60, "the start")
        time.sleep(0.5)
        migrans.assert_alive()
        migrans.stop()
        seen.append(rows_at(scene.target, t.name))
    print("rows at the target after each stop:", seen, "of", BACKLOG)
    report = migrans.run_until_caught_up()
    if seen[0] < BACKLOG:
        assert report["rows"]["inserted"] + report["rows"]["upserted"] < BACKLOG, "it began again from the start"
    scene.compare()


@pytest.mark.limit(300)
def test_kill_in_the_middle_of_a_backlog(scene):
    """kill -9 at random moments; then count(*) and all rows are exactly equal."""
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(BACKLOG)
    t.upsert(2000, fresh=100)
    t.delete(3000)
    rng = random.Random(9)
    migrans = scene.migrans(settings={"delivery.memory": "64MiB", "delivery.call_deadline": "2s"})
    for _ in range(6):
        migrans.run()
        time.sleep(rng.uniform(0.15, 1.2))
        migrans.kill9()
    migrans.run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == BACKLOG + 100 - 3000


@pytest.mark.limit(300)
def test_kill_under_load(scene):
    """kill -9 while the source is being written: inserts, upserts, deletes, partitions come and go."""
    tables = [scene.table("a", all_types(), dynamic=True, shards=2), scene.table("b", plain(key="varchar")),
              scene.table("c", plain(auto_id=True), shards=2)]
    work = Workload(tables, seed=11, batch=150).create(load=True)
    rng = random.Random(10)
    migrans = scene.migrans(settings={"delivery.call_deadline": "2s"})
    with work.start(rate=30):
        for _ in range(4):
            migrans.run()
            time.sleep(rng.uniform(0.2, 3.0))
            migrans.kill9()
    work.stop()
    print(f"{work.steps} steps, {sum(t.rows for t in tables)} rows")
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_stop_and_start_under_load(scene):
    tables = [scene.table("a", plain(), shards=2), scene.table("b", all_types("varchar"))]
    work = Workload(tables, seed=12, batch=100).create(load=True)
    migrans = scene.migrans()
    with work.start(rate=30):
        for _ in range(4):
            migrans.run()
            time.sleep(1.5)
            print(f"stopped within {migrans.stop():.2f} s")
    work.stop()
    migrans.run_until_caught_up()
    scene.compare()


def test_a_stop_leaves_a_consistent_cut(scene):
    """The source writes row i to A, then row i to B, one after the other. Wherever migrans stops, the target holds
    everything up to one moment: the same rows in both, or one more in A."""
    a = scene.table("a", plain(dim=8), shards=2).create(load=True)
    b = scene.table("b", plain(dim=8), shards=3).create(load=True)
    over = threading.Event()

    def write():
        i = 0
        while not over.is_set():
            i += 1
            for t in (a, b):
                t.insert(0, keys=[i])
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    migrans = scene.migrans()
    rng = random.Random(8)
    cuts = []
    try:
        for _ in range(3):
            migrans.run()
            before = rows_at(scene.target, b.name)
            until(lambda: rows_at(scene.target, b.name) > max(0, before), 60, "rows at the target", every=0.01)
            time.sleep(rng.uniform(0.0, 1.0))
            migrans.stop()
            in_a, in_b = (_keys(scene.target, t.name) for t in (a, b))
            cuts.append((len(in_a), len(in_b)))
            assert in_a == list(range(1, len(in_a) + 1)), "A has holes"
            assert in_b == list(range(1, len(in_b) + 1)), "B has holes"
            assert len(in_a) - len(in_b) in (0, 1), f"A has {len(in_a)} rows, B {len(in_b)}: not one moment of the source"
    finally:
        over.set()
        writer.join(30)
    print("rows in A and B at each stop:", cuts)
    assert cuts[-1][0] > 0
    migrans.run_until_caught_up()
    scene.compare()


def _keys(server, name) -> list[int]:
    """All keys at a loaded collection, once it has seen everything that was written."""
    with server.client() as client:
        count = client.count(name)
        keys, last = [], 0
        while len(keys) < count:
            page = client.query(name, f"id > {last}", ["id"], limit=16384, consistency=EVENTUALLY)["id"]
            if not len(page):
                break
            keys += sorted(page.tolist())
            last = keys[-1]
        assert len(keys) == count, f"{name}: {count} rows, but {len(keys)} keys"
        return keys


def test_quiet_source(scene):
    """Nothing new for some seconds costs next to no CPU, and what comes then is there at once."""
    t = scene.table("quiet", plain(), shards=2).create(load=True)
    t.insert(100)
    migrans = scene.migrans().run()
    wait_for_rows(scene.target, t.name, 100)
    time.sleep(1)
    cpu, began = migrans.process.cpu_seconds(), time.monotonic()
    time.sleep(6)
    migrans.assert_alive()
    share = (migrans.process.cpu_seconds() - cpu) / (time.monotonic() - began)
    [key] = t.insert(1)
    lag = wait_for_key(scene.target, t, key)
    resident = migrans.process.resident_bytes(peak=True) / 1e6
    print(f"idle: {share:.1%} of a core (to reach: under 3 %), peak {resident:.0f} MB resident; then one row was visible after {lag:.2f} s")
    assert lag < 10
    scene.settle(migrans)


@once
def test_until_a_time(scene):
    """--until stops at the given moment: what came later is not at the target."""
    t = scene.table("until", plain()).create(load=True)
    t.insert(100)
    time.sleep(1.5)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.5)
    t.insert(50)
    migrans = scene.migrans()
    migrans.run("--until", moment).expect(0, 60)
    wait_for_rows(scene.target, t.name, 100, timeout=20)
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_second_signal_ends_at_once(scene):
    """With the target frozen a stop may have to wait; a second signal does not."""
    t = scene.table("sig", plain(dim=64)).create(load=True)
    t.bulk(20_000)
    migrans = scene.migrans().run()
    until(lambda: rows_at(scene.target, t.name) > 0, 60, "rows at the target")
    scene.target.suspend()
    try:
        migrans.sigterm()
        time.sleep(0.3)
        migrans.sigterm()
        migrans.wait(3)
    finally:
        scene.target.resume()
    until(lambda: rows_at(scene.target, t.name) > 0, 60, "the target answers again")
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_kill_in_the_first_moments(scene):
    """Killed in the middle of its very first start, before there is any checkpoint."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(1000)
    migrans = scene.migrans(settings={"delivery.call_deadline": "1s"})
    for pause in (0.02, 0.05, 0.1, 0.2, 0.4):
        migrans.run()
        time.sleep(pause)
        migrans.kill9()
    migrans.run_until_caught_up()
    scene.compare()
