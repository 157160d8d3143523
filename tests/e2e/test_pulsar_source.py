"""The Pulsar source's own tests in Rust, which need a broker; and what `migrans check` and `migrans remove` say of one."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import until

from testbed import Pulsar, plain
from testbed.process import free_ports

pytestmark = pytest.mark.only("pulsar", reason="the others have nothing of the kind")


@pytest.mark.limit(400)
def test_the_source_against_a_real_broker():
    with Pulsar("lab-pulsar", small_ledgers=200) as broker:
        env = {**os.environ, "MIGRANS_TEST_PULSAR": broker.address, "MIGRANS_TEST_PULSAR_ADMIN": broker.admin_url}
        run = subprocess.run(["cargo", "test", "--release", "--test", "pulsar_source"], env=env, text=True,
                             capture_output=True, cwd=Path(__file__).parents[2], timeout=380, stdin=subprocess.DEVNULL)
    print(run.stdout[-4000:], run.stderr[-2000:])
    assert run.returncode == 0
    assert "skipped" not in run.stderr and " 0 passed" not in run.stdout


def test_check_asks_the_broker(scene):
    migrans = scene.migrans()
    run = migrans.check()
    assert run.returncode == 0 and "queue    Pulsar at pulsar://" in run.stdout
    migrans.set("source.mq.uri", f"pulsar://127.0.0.1:{free_ports(1)[0]}")
    run = migrans.check()
    assert run.returncode == 1 and "refused" in run.stderr


def test_remove_leaves_nothing_behind(scene):
    """No state, no subscription; and of those of others, none is taken."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(100)
    first, second = (scene.migrans(name=f"{scene.prefix}_{n}", settings={"source.mq.subscription": True, "target.adopt": True}) for n in "ab")
    first.run_until_caught_up()
    second.run_until_caught_up()
    topics = sorted({c.rpartition("_")[0] for c in t.client.describe(t.name).virtual_channel_names})
    ours = {m: {topic for topic in scene.mq.admin.topics() if f"migrans-{m.settings['name']}" in scene.mq.admin.subscriptions(topic)}
            for m in (first, second)}
    assert all(set(topics) <= kept for kept in ours.values()), ours
    run = first.remove()
    assert run.returncode == 0 and all(topic in run.stdout for topic in topics) and str(first.state_dir) in run.stdout
    assert not first.state_dir.exists()
    for topic in scene.mq.admin.topics():
        there = scene.mq.admin.subscriptions(topic)
        assert f"migrans-{first.settings['name']}" not in there
        assert (f"migrans-{second.settings['name']}" in there) == (topic in ours[second])
    assert "nothing to remove" in first.remove().stdout
    second.run()
    until(lambda: "resuming after" in second.said(), 30, "the second pipeline to be running")
    assert second.remove().returncode == 1, "while it runs"
    second.stop()
    assert second.remove().returncode == 0
