"""The broker, or the way to it, is gone for a while: migrans says what it waits for, goes on by itself, and loses nothing.

With MIGRANS_OUTAGE=150 in the environment the ways are broken for so many seconds, which nobody wants to wait for each time.
"""

import os
import time

import pytest
from conftest import readable, until

from testbed import plain

pytestmark = pytest.mark.only("kafka", "pulsar", reason="RocksMQ is a folder of Milvus itself: no broker that could be away")


def _said_waiting(scene, migrans, since: int = 0) -> str:
    """The first line that tells what is waited for: which broker, or which channel."""
    names = ("127.0.0.1:", f"{scene.source.root_path}-rootcoord-dml_")
    return next((line for line in migrans.said()[since:].splitlines() if "waiting" in line and any(n in line for n in names)), "")


def _wait_until_said(scene, migrans, since: int = 0, timeout: float = 40) -> None:
    line = until(lambda: migrans.assert_alive() or _said_waiting(scene, migrans, since), timeout, "a line that tells what is waited for")
    print(line)


# Pulsar gives a Milvus that comes back to a killed broker some messages again, and that Milvus takes their rows twice: they
# are in the log once, and on the target once.
REPEATS = {"duplicates": "fewer"}


def _revive(scene, tables) -> None:
    """A Milvus that has lost its broker goes on, or ends itself: then somebody starts it again, here as elsewhere."""
    time.sleep(1)
    if not scene.source.process.alive:
        print("the source ended without its broker, and is started again")
        scene.source.start()
    readable(scene.source, tables)


@pytest.mark.limit(300)
def test_broker_comes_up_after_us(scene):
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(200)
    scene.source.kill9()
    scene.mq.stop()
    migrans = scene.migrans().run()
    _wait_until_said(scene, migrans)
    scene.mq.start()
    scene.source.start()
    readable(scene.source, [t])
    t.insert(50)
    migrans.assert_alive()
    scene.settle(migrans, **REPEATS)


@pytest.mark.limit(300)
def test_broker_is_killed_in_the_middle_of_a_backlog(scene):
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(60_000)
    # What a Milvus has not stored otherwise when its broker is killed, it may not have afterwards, though its log has it.
    t.client.flush(t.name)
    time.sleep(3)
    # Small batches, one at a time: slow enough for the broker to be gone in between, and to be missed.
    migrans = scene.migrans(settings={"delivery.memory": "64MiB", "delivery.batch": "64KiB", "delivery.max_calls": 1}).run()
    until(lambda: scene.target.client().has_collection(t.name), 60, "the collection at the target", every=0.02)
    time.sleep(0.3)
    scene.mq.kill9()
    _wait_until_said(scene, migrans)
    scene.mq.start()
    _revive(scene, [t])
    migrans.assert_alive()
    scene.settle(migrans, **REPEATS)


@pytest.mark.limit(300)
def test_broker_is_killed_under_load(busy):
    said = len(busy.migrans.said())
    busy.scene.mq.kill9()
    _wait_until_said(busy.scene, busy.migrans, said)
    busy.scene.mq.start()
    _revive(busy.scene, busy.tables)
    busy.settle(**REPEATS)


OUTAGE = int(os.environ.get("MIGRANS_OUTAGE", 0))


@pytest.mark.limit(240 + 2 * OUTAGE)
@pytest.mark.parametrize("what,seconds", [("cut", OUTAGE or 6), ("blackhole", OUTAGE or 20)])
def test_connection_is_broken(idle_busy, proxy, what, seconds):
    """Milvus keeps its own connection and goes on; only ours is reset and refused, or swallows every byte."""
    busy = idle_busy.start(**idle_busy.scene.by_proxy)
    assert proxy.accepted, "migrans does not go through the proxy"
    said = len(busy.migrans.said())
    try:
        getattr(proxy, what)()
        time.sleep(seconds)
        _wait_until_said(busy.scene, busy.migrans, said)
    finally:
        proxy.passing()
    busy.settle()


@pytest.mark.limit(240)
def test_connection_is_cut_again_and_again(scene, proxy):
    """In the middle of a backlog, at any byte: messages are neither lost nor taken twice."""
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(60_000)
    migrans = scene.migrans(mq=scene.by_proxy, settings={"delivery.memory": "64MiB", "delivery.batch": "256KiB", "delivery.max_calls": 1})
    migrans.run()
    until(lambda: scene.target.client().has_collection(t.name), 60, "the collection at the target", every=0.02)
    for _ in range(6):
        time.sleep(0.4)
        proxy.cut()
        time.sleep(0.1)
        proxy.passing()
    migrans.assert_alive()
    scene.settle(migrans)


def test_topic_goes_to_another_broker(busy):
    """Its leader is gone for a moment. With one broker: Pulsar lets go of all topics and takes them again, Kafka is frozen."""
    for _ in range(3):
        if busy.scene.mq.kind == "pulsar":
            busy.scene.mq.admin.unload_all()
        else:
            busy.scene.mq.suspend()
            time.sleep(3)
            busy.scene.mq.resume()
        time.sleep(2)
        busy.migrans.assert_alive()
    _revive(busy.scene, busy.tables)
    busy.settle()
