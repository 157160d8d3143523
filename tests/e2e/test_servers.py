"""Source, target and etcd go away and come back while migrans runs: it waits, goes on, and loses nothing."""

import time

import pytest
from conftest import until, wait_for_key

from testbed import Workload, all_types, plain


@pytest.fixture
def busy(scene):
    """A pipeline that follows a source which is being written all the time."""
    tables = [scene.table("a", plain(), shards=2), scene.table("b", all_types("varchar"), dynamic=True)]
    work = Workload(tables, seed=21, batch=60).create(load=True)
    work.run(30)
    migrans = scene.migrans(settings={"delivery.call_deadline": "5s"}).run()
    wait_for_key(scene.target, tables[0], tables[0].insert(1)[0])
    with work.start(rate=15, tolerant=True):
        time.sleep(1)
        yield scene, work, migrans


def _settle(scene, work, migrans):
    """One more row comes through, then everything is compared."""
    work.stop()
    [key] = until(lambda: work.tables[0].insert(1), 90, "the source takes rows again", every=0.3)
    wait_for_key(scene.target, work.tables[0], key, timeout=90)
    migrans.assert_alive()
    scene.settle(migrans)


def _readable(server, tables, timeout=120):
    """Loaded collections come back some time after a restart."""
    with server.client(timeout=10) as client:
        for t in tables:
            until(lambda: client.count(t.name) >= 0, timeout, f"{t.name} at {server.name} is readable", every=0.3)


@pytest.mark.limit(240)
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_source_restarts(busy, kill):
    scene, work, migrans = busy
    scene.source.restart(down=2, kill=kill)
    _readable(scene.source, work.tables)
    time.sleep(2)
    migrans.assert_alive()
    _settle(scene, work, migrans)


@pytest.mark.limit(240)
def test_target_restarts(busy):
    scene, work, migrans = busy
    for down in (0.0, 4.0):
        scene.target.restart(down=down, kill=True)
        _readable(scene.target, work.tables)
        time.sleep(1)
        migrans.assert_alive()
    _settle(scene, work, migrans)


@pytest.mark.limit(240)
def test_target_restarts_in_the_middle_of_a_backlog(scene):
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(60_000)
    migrans = scene.migrans(settings={"delivery.call_deadline": "3s", "delivery.memory": "64MiB"}).run()
    until(lambda: scene.target.client().has_collection(t.name), 60, "the collection at the target", every=0.02)
    time.sleep(0.5)
    scene.target.restart(kill=True)
    _readable(scene.target, [t])
    migrans.assert_alive()
    scene.settle(migrans)


def test_target_is_frozen_for_a_while(busy):
    """Calls that get no answer are in doubt; none may be lost or doubled."""
    scene, work, migrans = busy
    scene.target.suspend()
    time.sleep(8)
    scene.target.resume()
    migrans.assert_alive()
    _settle(scene, work, migrans)


def test_source_etcd_restarts(busy):
    scene, work, migrans = busy
    scene.source.etcd.restart(down=1)
    scene.source.etcd.restart(down=0, kill=True)
    extra = scene.table("new", plain(), seed=3)
    until(lambda: extra.create() and True, 30, "the source makes collections again", every=0.5)
    extra.load()
    extra.insert(30)
    work.tables.append(extra)
    time.sleep(1)
    _settle(scene, work, migrans)


def test_source_etcd_is_compacted(busy):
    """A watch that was broken while the history went away begins again from a new list."""
    scene, work, migrans = busy
    etcd = scene.source.etcd
    for i in range(3):
        made = scene.table(f"new{i}", plain(), seed=i).create(load=True)
        made.insert(20)
        work.tables.append(made)
        migrans.process.suspend()   # it falls behind ...
        more = scene.table(f"more{i}", plain(), seed=i).create()
        more.insert(20)
        more.create_partition("p")
        etcd.compact()              # ... the history it would have to read is gone ...
        etcd.restart(kill=True)     # ... and so is the watch
        migrans.process.resume()
        time.sleep(1)
        migrans.assert_alive()
    _settle(scene, work, migrans)


def test_migrans_is_frozen_for_a_while(busy):
    scene, work, migrans = busy
    migrans.process.suspend()
    time.sleep(8)
    migrans.process.resume()
    _settle(scene, work, migrans)
