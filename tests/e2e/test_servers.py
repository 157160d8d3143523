"""Source, target and etcd go away and come back while migrans runs: it waits, goes on, and loses nothing."""

import time

import pytest
from conftest import readable, until

from testbed import plain

once = pytest.mark.only("rocksmq", reason="the target and etcd are the same whatever the queue is")


@pytest.mark.limit(240)
@pytest.mark.parametrize("kill", [pytest.param(False, marks=once), True], ids=["stopped", "killed"])
def test_source_restarts(busy, kill):
    busy.scene.source.restart(down=2, kill=kill)
    readable(busy.scene.source, busy.work.tables)
    time.sleep(2)
    busy.migrans.assert_alive()
    # A Milvus that is killed between the two halves of an upsert has the row twice, and so has its log.
    busy.settle(duplicates="equal" if kill else "")


@once
@pytest.mark.limit(240)
def test_target_restarts(busy):
    for down in (0.0, 3.0):
        busy.scene.target.restart(down=down, kill=True)
        readable(busy.scene.target, busy.work.tables)
        time.sleep(1)
        busy.migrans.assert_alive()
    busy.settle()


@once
@pytest.mark.limit(240)
def test_target_restarts_in_the_middle_of_a_backlog(scene):
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(60_000)
    migrans = scene.migrans(settings={"delivery.call_deadline": "3s", "delivery.memory": "64MiB"}).run()
    until(lambda: scene.target.client().has_collection(t.name), 60, "the collection at the target", every=0.02)
    time.sleep(0.5)
    scene.target.restart(kill=True)
    readable(scene.target, [t])
    migrans.assert_alive()
    scene.settle(migrans)


@once
def test_target_is_frozen_for_a_while(busy):
    """Calls that get no answer are in doubt; none may be lost or doubled."""
    busy.scene.target.suspend()
    time.sleep(7)
    busy.scene.target.resume()
    busy.migrans.assert_alive()
    busy.settle()


@once
def test_source_etcd_restarts(busy):
    busy.scene.source.etcd.restart(down=1)
    busy.scene.source.etcd.restart(down=0, kill=True)
    extra = busy.scene.table("new", plain(), seed=3)
    until(lambda: extra.create() and True, 30, "the source makes collections again", every=0.5)
    extra.load()
    extra.insert(30)
    busy.work.tables.append(extra)
    time.sleep(1)
    busy.settle()


@once
def test_source_etcd_is_compacted(busy):
    """A watch that was broken while the history went away begins again from a new list."""
    etcd = busy.scene.source.etcd
    for i in range(2):
        made = busy.scene.table(f"new{i}", plain(), seed=i).create(load=True)
        made.insert(20)
        busy.work.tables.append(made)
        busy.migrans.process.suspend()   # it falls behind ...
        more = busy.scene.table(f"more{i}", plain(), seed=i).create()
        more.insert(20)
        more.create_partition("p")
        etcd.compact()              # ... the history it would have to read is gone ...
        etcd.restart(kill=True)     # ... and so is the watch
        busy.migrans.process.resume()
        time.sleep(1)
        busy.migrans.assert_alive()
    busy.settle()


def test_migrans_is_frozen_for_a_while(busy):
    busy.migrans.process.suspend()
    time.sleep(6)
    busy.migrans.process.resume()
    busy.settle()
