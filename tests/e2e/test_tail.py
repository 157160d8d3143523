"""`migrans tail`: what the source's log says, message by message or counted."""

import json
import re
import signal
import subprocess
import time

import pytest
from conftest import until

from testbed import MigransError, plain
from testbed.migrans import binary, toml


def _lines(text: str) -> list[dict]:
    # Not splitlines: a key may hold one of the other characters that it takes for the end of a line.
    return [json.loads(line) for line in text.split("\n") if line]


def test_every_message_is_told(scene):
    """Channel, position, time, kind, collection, partition, rows and keys of each message, in the order of its topic."""
    t = scene.table("t", plain(), shards=2).create()
    t.create_partition("p")
    keys = t.insert(50) + t.insert(20, "p")
    gone = t.delete(10, "p", everywhere=False) + t.delete(5)
    t.drop_partition("p")
    other = scene.table("other", plain(key="varchar")).create()
    names = other.insert(30)
    migrans = scene.migrans()
    def all_of_it():
        return _lines(migrans.tail("--from", "collection", "--until", "caught-up", "--json", "--keys", "1000"))
    # Milvus says that a partition is dropped some seconds after it has dropped it.
    lines = until(lambda: [*filter(lambda lines: any(line["kind"] == "drop-partition" for line in lines), [all_of_it()])], 90, "the drop")[0]
    kinds = {line["kind"] for line in lines}
    assert kinds == {"create-collection", "insert", "delete", "drop-partition"}, kinds
    inserted = [line for line in lines if line["kind"] == "insert"]
    assert sorted(k for line in inserted if line["collection"] == t.full_name for k in line["keys"]) == sorted(keys)
    assert sorted(k for line in inserted if line["collection"] == other.full_name for k in line["keys"]) == sorted(names)
    assert sum(line["rows"] for line in inserted) == 100
    assert {line["partition"] for line in inserted} == {"_default", "p"}
    deleted = [line for line in lines if line["kind"] == "delete"]
    assert sorted(k for line in deleted for k in line["keys"]) == sorted(gone)
    assert {line["partition"] for line in deleted} <= {"_default", "p", "*"}
    channels = {c for table in (t, other) for c in table.client.describe(table.name).physical_channel_names}
    assert {line["channel"] for line in lines} == channels
    for channel in channels:
        ids = [line["id"] for line in lines if line["channel"] == channel]
        assert len(set(ids)) == len(ids), ids
        assert all(re.fullmatch(r"\d+:\d+(:\d+)?" if scene.mq and scene.mq.kind == "pulsar" else r"\d+", id) for id in ids), ids
    assert all(line["ts"] > 0 and line["time"].endswith("Z") for line in inserted), inserted

    text = migrans.tail("--from", "collection", "--until", "caught-up", "--collection", other.full_name)
    assert other.full_name in text and t.full_name not in text and " 30 rows: " in text, text


def test_counting(scene):
    t = scene.table("t", plain(), shards=2).create()
    for _ in range(4):
        t.insert(25)
    t.delete(7)
    migrans = scene.migrans()
    counts = {(c["collection"], c["kind"]): c for c in _lines(migrans.tail("--count", "--json"))}
    assert counts[t.full_name, "insert"]["rows"] == 100
    assert counts[t.full_name, "delete"]["rows"] == 7
    assert counts[t.full_name, "create-collection"]["messages"] == 2
    assert counts[t.full_name, "insert"]["bytes"] > 100 * 4 * t.vector.params["dim"]
    table = migrans.tail("--count")
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [list(key) for key in sorted(counts)], table
    # From a time on: what was before does not count.
    time.sleep(1.1)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    t.insert(3)
    [one] = _lines(migrans.tail("--count", "--json", "--from", now))
    assert (one["kind"], one["rows"]) == ("insert", 3)


def test_following(scene):
    """Messages come as they pass, also of a collection that is made meanwhile; ticks if they are asked for."""
    t = scene.table("t", plain()).create()
    t.insert(10)
    migrans = scene.migrans()
    migrans.file.write_text(toml(migrans.settings), "utf-8")
    log = migrans.folder / "tail.log"
    with open(log, "wb") as out:
        tail = subprocess.Popen([binary(), "tail", migrans.file, "--ticks"], stdout=out, stdin=subprocess.DEVNULL)
    try:
        until(lambda: "tick" in log.read_text(), 20, "a tick")
        assert "10 rows" not in log.read_text(), "it begins with what is new"
        t.insert(11)
        until(lambda: "11 rows" in log.read_text(), 10, "the new rows")
        later = scene.table("later", plain()).create()
        later.insert(12)
        until(lambda: f"{later.full_name}/_default 12 rows" in log.read_text(), 20, "rows of a new collection")
    finally:
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 0


@pytest.mark.only("rocksmq", reason="it is the same command line for all")
def test_wrong_arguments(scene):
    migrans = scene.migrans()
    for args, what in ((("--from", "yesterday"), "expected latest, earliest"), (("--collection", "orders"), "default.orders"),
                       (("--count", "--ticks"), "cannot be used with")):
        with pytest.raises(MigransError, match="ended with 2") as error:
            migrans.tail(*args)
        assert what in str(error.value), error.value


@pytest.mark.only("rocksmq", reason="it is about standard output")
def test_a_reader_that_has_seen_enough(scene):
    t = scene.table("t", plain()).create()
    for _ in range(20):
        t.insert(5)
    migrans = scene.migrans()
    migrans.tail("--count")
    shell = f"'{binary()}' tail '{migrans.file}' --from earliest --until caught-up | head -1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, timeout=30)
    assert run.returncode == 0 and len(run.stdout.splitlines()) == 1 and "panicked" not in run.stderr, run
