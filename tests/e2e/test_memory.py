"""The memory budget holds under a backlog, however much of it there is and whatever the target does."""

import time
from pathlib import Path

import pytest

from testbed import plain


def _resident(pid: int, what: str = "VmHWM") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    return 0


@pytest.mark.limit(240)
def test_a_backlog_does_not_fill_the_memory(scene):
    """185 MB of messages, a budget of 48 MiB, and a target that stops taking anything for a while."""
    tables = [scene.table(f"t{i}", plain(dim=512), shards=2).create() for i in range(2)]
    for t in tables:
        t.bulk(45_000)
    migrans = scene.migrans(settings={"delivery.memory": "48MiB", "delivery.batch": "4MiB"}).run("--until", "caught-up")
    peak, paused = 0.0, False
    began = time.monotonic()
    while migrans.alive:
        try:
            peak = max(peak, _resident(migrans.process.pid))
        except (FileNotFoundError, ProcessLookupError):
            break
        if not paused and peak > 60:
            scene.target.suspend()
            time.sleep(3)
            scene.target.resume()
            paused = True
        assert time.monotonic() - began < 200
        time.sleep(0.05)
    migrans.expect(0, 10)
    report = migrans.report()
    assert paused, f"it never held anything: peak {peak:.0f} MiB"
    assert report["rows"]["inserted"] + report["rows"]["upserted"] >= 90_000
    memory = report["memory"]
    # A broker's client reads ahead by itself: a quarter is left for that.
    assert memory["budget"] == (36 if scene.mq else 48) << 20
    # One tick of each channel may come on top when nothing else can move.
    assert memory["peak"] < 96 << 20, memory
    assert peak < 220, f"{peak:.0f} MiB resident with a budget of 48 MiB"
    assert {c["name"] for c in report["channels"]} == {c for t in tables for c in t.client.describe(t.name).physical_channel_names}
    assert sum(c["waited_ms"]["memory"] + c["waited_ms"]["dataflow"] for c in report["channels"]) > 1000, report["channels"]
    scene.compare()
