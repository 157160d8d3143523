"""Where a pipeline begins that has not run before: `start` and `positions` in [source].

What was there before the beginning is deleted at the source once the pipeline has begun. So both sides can be compared in
full in the end, and the report tells whether the earlier rows were ever copied.
"""

import base64
import datetime
import time

import pytest
from conftest import until
from pymilvus.grpc_gen.msg_pb2 import MsgPosition

from testbed import Table, plain

once = pytest.mark.only("rocksmq", reason="the queue is only asked for a place somewhat before that time")
OLD, NEW = 120, 70  # rows before and after the beginning


def _write_and_compare(scene, migrans, t: Table, old: list, late: int = 0) -> None:
    """`old` keys, which the pipeline must not have copied, go away; `late` rows are in the log beside them already."""
    t.insert(NEW - late)
    t.client.delete(t.name, f"id in [{','.join(map(str, old))}]")
    t.live["_default"] = [k for k in t.live["_default"] if k not in set(old)]
    rows = migrans.run_until_caught_up()["rows"]
    assert rows["inserted"] + rows["upserted"] == NEW, rows
    assert scene.compare()[t.full_name].target_rows == NEW


def test_latest(scene):
    """Collections come with all their attributes, rows from now on; a collection made later comes with all its rows."""
    t = scene.table("old", plain(), shards=2).create(load=True)
    t.create_partition("p")
    old = t.insert(OLD)
    time.sleep(1)
    migrans = scene.migrans(settings={"source.start": "latest"})
    rows = migrans.run_until_caught_up()["rows"]
    assert sum(rows.values()) == 0, rows
    _write_and_compare(scene, migrans, t, old)
    later = scene.table("later", plain()).create(load=True)
    later.insert(30)
    migrans.run_until_caught_up()
    assert scene.compare()[later.full_name].target_rows == 30


@pytest.mark.parametrize("zone", ["Z", pytest.param("+05:30", marks=once)])
def test_a_time(scene, zone):
    t = scene.table("t", plain(), shards=2).create(load=True)
    old = t.insert(OLD)
    time.sleep(1.2)
    moment = datetime.datetime.now(datetime.timezone.utc)
    time.sleep(0.2)
    late = len(t.insert(20))
    if zone != "Z":
        moment = moment.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert text.endswith(zone)
    _write_and_compare(scene, scene.migrans(settings={"source.start": text}), t, old, late)


@pytest.mark.parametrize("early", [0, pytest.param(1, marks=once)], ids=["at", "just before"])
def test_a_tso(scene, early):
    """Begins with the first change later than that: rows of this very timestamp are not copied, but with the one before they
    are."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    old = t.insert(OLD)
    keys = t.new_keys(20)
    tso = t.client.insert(t.name, t.columns(keys)).timestamp
    t.live["_default"] += keys
    late = len(t.insert(10)) + early * len(keys)
    if not early:
        old += keys
    _write_and_compare(scene, scene.migrans(settings={"source.start": str(tso - early)}), t, old, late)


def test_earliest(scene):
    """All that is still in the queue, which here is all there is; rows of former collections do no harm."""
    scene.table("t", plain()).create().insert(40)
    scene.table("t", plain()).drop()
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(OLD)
    t.delete(20)
    scene.migrans(settings={"source.start": "earliest"}).run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == OLD - 20


def _checkpoints(scene, t: Table) -> dict[str, MsgPosition]:
    """Where Milvus itself would go on reading: what a backup or a segment list is complete up to."""
    found = scene.source.etcd.get(f"{scene.source.root_path}/{scene.source.meta_path}/datacoord-meta/channel-cp/", prefix=True)
    positions = {key.decode().rpartition("/")[2]: MsgPosition.FromString(value) for key, value in found.items()}
    return {c: positions[c] for c in t.client.describe(t.name).virtual_channel_names if c in positions}


def test_positions(scene):
    """The vchannels' positions out of the source's catalog, behind what has been flushed."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    old = t.insert(OLD)
    keys = t.new_keys(1)
    flushed = t.client.insert(t.name, t.columns(keys)).timestamp
    old += keys
    t.live["_default"] += keys
    t.client.flush(t.name)

    def behind():
        at = _checkpoints(scene, t)
        return len(at) == 2 and all(p.timestamp > flushed for p in at.values()) and at
    positions = until(behind, 100, "channel checkpoints behind the flush", every=0.5)
    late = len(t.insert(20))
    texts = {channel: base64.b64encode(p.SerializeToString()).decode() for channel, p in positions.items()}
    _write_and_compare(scene, scene.migrans(settings={"source.positions": texts}), t, old, late)


def test_positions_of_another_queue(scene):
    """A position has the form of the queue that it belongs to."""
    t = scene.table("t", plain()).create()
    t.insert(10)
    [channel] = t.client.describe(t.name).virtual_channel_names
    wrong = MsgPosition(channel_name=channel, msgID=b"neither an offset nor an id", timestamp=1)
    said = scene.migrans(settings={"source.positions": {channel: base64.b64encode(wrong.SerializeToString()).decode()}}).fail(1, 60)
    assert channel.rpartition("_")[0] in said and "position" in said, said
