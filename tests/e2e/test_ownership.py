"""Several processes for one pipeline: one owns it, the others stand by; whatever happens to the owner, the next one goes on
and nothing is there twice or missing."""

import json
import random
import signal
import time

import pytest
from conftest import rows_at, until, wait_for_key

from testbed import Etcd, TcpProxy, Workload, all_types, plain

pytestmark = pytest.mark.only("rocksmq", reason="nothing in it depends on where the messages come from")
TTL, SETTLE = 3, 4  # the defaults, in seconds
PROMISED = 10.0  # seconds from the death of the owner until the next one writes


@pytest.fixture
def etcd():
    """An etcd for the ownership alone, so that it can be taken away."""
    etcd = Etcd("ownership")
    etcd.start()
    yield etcd
    etcd.discard()


class Hosts:
    """Processes of one pipeline, each as on a host of its own: with its own state folder and pipeline file."""

    def __init__(self, scene, etcd, **settings):
        self.scene, self.etcd, self.settings = scene, etcd, settings
        self.all = []

    def another(self, **settings):
        m = self.scene.migrans(settings={"ownership.etcd": [self.etcd.endpoint], **self.settings, **settings})
        self.all.append(m)
        return m

    def start(self, **settings):
        return self.another(**settings).run()

    def key(self, name):
        found = self.etcd.get(f"/migrans/{self.scene.prefix}/{name}")
        return next(iter(found.values()), None)


@pytest.fixture
def hosts(scene, etcd):
    return Hosts(scene, etcd)


def owns(migrans, timeout=30):
    until(lambda: "owner of the pipeline since" in migrans.said(), timeout, "it owns the pipeline")
    return migrans


def stands_by(migrans, timeout=30):
    until(lambda: "standing by" in migrans.said(), timeout, "it stands by")
    migrans.assert_alive()
    return migrans


def writes(scene, table, timeout=60):
    """Seconds until a row that is written at the source now is at the target."""
    [key] = until(lambda: table.insert(1), 30, "the source takes a row")
    return wait_for_key(scene.target, table, key, timeout=timeout)


def busy(scene):
    """A workload, and a table beside it to ask with whether rows come through."""
    tables = [scene.table("a", plain(), shards=2), scene.table("b", all_types("varchar"), dynamic=True)]
    return scene.table("probe", plain(dim=8)).create(load=True), Workload(tables, seed=31, batch=60).create(load=True)


def finish(scene, hosts, work, migrans):
    """Everything written so far comes through, and the target equals the source."""
    work.stop()
    for m in hosts.all:
        if m.alive and m is not migrans:
            m.stop()
    return scene.settle(migrans)


@pytest.mark.limit(240)
def test_the_owner_is_killed_under_load(scene, hosts):
    probe, work = busy(scene)
    first = owns(hosts.start())
    second = stands_by(hosts.start())
    said = second.said()
    assert f"process {first.process.pid} on" in said, said
    until(lambda: second.report()["ownership"]["state"] == "standing by", 10, "its report says so")
    with work.start(rate=15):
        writes(scene, probe)
        time.sleep(2)
        before = int(hosts.key("commit"))
        first.kill9()
        died = time.monotonic()
        until(lambda: "owner of the pipeline since" in second.said(), 20, "the takeover", every=0.01)
        owned = time.monotonic() - died
        writes(scene, probe)
        wrote = time.monotonic() - died
        print(f"kill -9: owner after {owned:.2f} s, a new row at the target after {wrote:.2f} s (promised {PROMISED:.0f} s)")
        assert owned < TTL + 1.5
        assert wrote < PROMISED
        assert int(hosts.key("commit")) > before
        ownership = second.report()["ownership"]
        assert ownership["state"] == "owner" and ownership["epoch"] > 1 and ownership["owner"] is None, ownership
    finish(scene, hosts, work, second)


@pytest.mark.limit(240)
def test_a_paused_owner_that_wakes_up_writes_nothing(scene, hosts):
    """SIGSTOP in the middle of a backlog; the standby takes over and finishes it; then SIGCONT. Not one byte of the former
    owner comes to the target after that."""
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(60_000)
    with TcpProxy(scene.target.ports["proxy"]) as proxy:
        slow = {"delivery.memory": "64MiB", "delivery.batch": "64KiB", "delivery.max_calls": 4, "target.uri": f"http://{proxy.address}"}
        first = owns(hosts.start(**slow))
        ours = proxy.accepted
        second = stands_by(hosts.start(**slow))
        until(lambda: rows_at(scene.target, t.name) > 0, 60, "rows at the target", every=0.01)
        first.process.signal(signal.SIGSTOP)
        paused = time.monotonic()
        until(lambda: "owner of the pipeline since" in second.said(), 20, "the takeover", every=0.01)
        owned = time.monotonic() - paused
        others = sum(proxy.taken[ours:])
        until(lambda: sum(proxy.taken[ours:]) > others + 50_000, 30, "the standby writes", every=0.01)
        wrote = time.monotonic() - paused
        print(f"SIGSTOP: the next one is the owner after {owned:.2f} s and writes after {wrote:.2f} s (promised {PROMISED:.0f} s)")
        assert wrote < PROMISED
        t.upsert(500, fresh=0)
        t.delete(300)
        writes(scene, t, timeout=90)
        scene.compare()
        before, accepted = sum(proxy.taken[:ours]), proxy.accepted
        first.process.signal(signal.SIGCONT)
        assert first.wait(15) == 1
        said = first.said()
        assert "no longer owns the pipeline" in said and f"process {second.process.pid} on" in said, said
        sent = sum(proxy.taken[:ours]) - before + sum(proxy.taken[accepted:])
        assert sent == 0, f"{sent} bytes came from it after it woke up"
        second.assert_alive()
        scene.compare()
        scene.settle(second)


@pytest.mark.limit(240)
def test_a_pause_under_load_again_and_again(scene, hosts):
    """Pauses that are longer and shorter than the lease: whoever lost it ends, whoever did not goes on."""
    probe, work = busy(scene)
    rng = random.Random(4)
    running = [owns(hosts.start()), stands_by(hosts.start())]
    with work.start(rate=20):
        for pause in (1.0, TTL + 3.0, 1.5, TTL + 6.0):
            time.sleep(rng.uniform(0.5, 2))
            owner, other = running
            owner.process.signal(signal.SIGSTOP)
            time.sleep(pause)
            owner.process.signal(signal.SIGCONT)
            if pause < TTL - 1:
                time.sleep(1)
                owner.assert_alive()
                assert "owner of the pipeline since" not in other.said()
            else:
                assert owner.wait(15) == 1
                assert "no longer owns the pipeline" in owner.said()
                owns(other)
                running = [other, stands_by(hosts.start())]
    finish(scene, hosts, work, running[0])


@pytest.mark.limit(300)
def test_five_takeovers_in_a_row(scene, hosts):
    probe, work = busy(scene)
    rng = random.Random(5)
    owner, epochs, took = owns(hosts.start()), [], []
    with work.start(rate=15):
        for i in range(5):
            standby = stands_by(hosts.start())
            if i % 2 == 0:
                writes(scene, probe)
            # Else it may be killed while it waits for the calls of the one before.
            time.sleep(rng.uniform(0.0, 2.0))
            owner.kill9()
            died = time.monotonic()
            owner = owns(standby)
            took.append(time.monotonic() - died)
            epochs.append(until(lambda: owner.report()["ownership"]["epoch"], 20, "an epoch in its report"))
        writes(scene, probe)
    print("owner after", ", ".join(f"{t:.2f} s" for t in took), "with epochs", epochs)
    assert epochs == sorted(set(epochs)) and max(took) < TTL + 1.5
    finish(scene, hosts, work, owner)


@pytest.mark.limit(180)
def test_a_clean_stop_hands_over_at_once(scene, hosts):
    probe, work = busy(scene)
    first, second = owns(hosts.start()), None
    second = stands_by(hosts.start())
    with work.start(rate=15):
        writes(scene, probe)
        first.stop()
        stopped = time.monotonic()
        owns(second)
        until(lambda: "resuming after" in second.said(), 10, "it goes on", every=0.01)
        took = time.monotonic() - stopped
        wrote = writes(scene, probe)
        print(f"clean stop: the next one goes on after {took:.2f} s and a new row is at the target {wrote:.2f} s later")
        assert took < 2, "it waited for a lease to expire"
        assert "did not stop cleanly" not in second.said()
        third = stands_by(hosts.start())
        assert third.stop() < 2, "one that stands by ends at once, with 0"
    finish(scene, hosts, work, second)


@pytest.mark.limit(300)
def test_the_etcd_of_the_ownership_goes_away(scene, hosts, etcd):
    """For a moment: nobody notices. For long: nothing is sent meanwhile, and then it goes on."""
    probe, work = busy(scene)
    owner = owns(hosts.start())
    standby = stands_by(hosts.start())
    with work.start(rate=15):
        writes(scene, probe)
        etcd.kill9()
        time.sleep(0.5)
        etcd.start()
        print(f"restart of the etcd: a row came through within {writes(scene, probe):.2f} s")
        owner.assert_alive()

        etcd.kill9()
        time.sleep(TTL + SETTLE + 2)  # all calls are over
        before = owner.report()["rows"]
        time.sleep(4)
        assert owner.report()["rows"] == before, "it went on without knowing whether it owns the pipeline"
        assert "nothing is sent while the ownership is not certain" in json.dumps(owner.report())
        etcd.start()
        began = time.monotonic()
        writes(scene, probe)
        print(f"after an outage of {TTL + SETTLE + 6} s it goes on after {time.monotonic() - began:.2f} s")
    alive = [m for m in (owner, standby) if m.alive]
    assert alive, "both have ended"
    last = next((m for m in alive if "owner of the pipeline since" in m.said()), alive[0])
    finish(scene, hosts, work, last)


@pytest.mark.limit(120)
def test_another_definition_may_not_stand_by(scene, hosts):
    t = scene.table("t", plain()).create(load=True)
    t.insert(100)
    first = owns(hosts.start())
    wait_for_key(scene.target, t, t.insert(1)[0])
    other = hosts.another(**{"select.exclude": [f"default.{scene.name('x')}"]})
    said = other.fail(args=())
    assert "was made for another source, selection or target" in said and "exclude" in said, said
    same = hosts.another()
    assert "process" in same.check().stdout, same.check()
    first.assert_alive()
    scene.settle(first)


@pytest.mark.limit(180)
def test_the_checkpoint_is_the_one_in_etcd(scene, hosts):
    """A state folder that was left behind is brought up to date; without [ownership], or without the etcd, it is refused."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(500)
    first, second = hosts.another(), hosts.another()
    first.run_until_caught_up()
    t.insert(500)
    second.run_until_caught_up()
    t.delete(200)
    report = first.run_until_caught_up()
    assert report["rows"] == {"inserted": 0, "upserted": 0, "deleted": 200}, "it began with its own old checkpoint"
    scene.compare()
    kept = first.settings.pop("ownership")
    assert "[ownership] is not in the pipeline file" in first.fail()
    first.settings["ownership"] = {**kept, "prefix": "/elsewhere/"}
    assert "no longer there" in first.fail()
    first.settings["ownership"] = kept
    first.run_until_caught_up()

    second.process.log.write_bytes(b"")
    running = owns(second.run())
    done = first.remove()
    assert done.returncode == 1 and f"process {running.process.pid}" in done.stderr, done
    running.stop()
    done = first.remove()
    assert done.returncode == 0 and "the keys below" in done.stdout, done
    assert not hosts.etcd.get("/migrans/", prefix=True)


@pytest.mark.limit(120)
def test_a_pipeline_that_ran_alone_gets_an_ownership(scene, hosts, etcd):
    """What its state folder says is where the shared checkpoint begins."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(300)
    alone = scene.migrans()
    alone.run_until_caught_up()
    t.insert(50)
    alone.set("ownership.etcd", [etcd.endpoint])
    report = alone.run_until_caught_up()
    assert report["rows"]["inserted"] == 50
    other = hosts.another()
    t.insert(5)
    assert other.run_until_caught_up()["rows"]["inserted"] == 5
    scene.compare()
