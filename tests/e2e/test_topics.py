"""The topics that messages lie in: shared, made later, named by others, trimmed, gone."""

import re
import time

import pytest
from conftest import rows_at, until, wait_for_rows
from pymilvus.grpc_gen import common_pb2, msg_pb2, schema_pb2

from testbed import plain
from testbed.client import encode_column

with_broker = pytest.mark.only("kafka", "pulsar", reason="a topic of RocksMQ is no more than the beginning of a key, and one of its store is tested "
                               "with bad input")


def _topics(scene) -> list[str]:
    """The topics of this source's rows."""
    return [t for t in (scene.mq.topics() if scene.mq.kind == "kafka" else scene.mq.admin.topics()) if t.startswith(f"{scene.source.root_path}-rootcoord-dml_")]


def test_a_channel_shared_with_collections_that_are_not_selected(own_source):
    """One pchannel for everything: others' rows, partitions and drops pass by, and nothing of them is at the target."""
    scene = own_source(rootCoord__dmlChannelNum=1)
    mine, other = scene.table("mine", plain()).create(load=True), scene.table("other", plain(dim=32)).create()
    for _ in range(3):
        other.insert(300)
        mine.insert(100)
        other.create_partition("p")
        other.insert(50, "p")
        mine.delete(10)
        other.drop_partition("p")
    assert len({c.rpartition("_")[0] for t in (mine, other) for c in t.client.describe(t.name).virtual_channel_names}) == 1
    migrans = scene.migrans(exclude=[other.full_name])
    report = migrans.run_until_caught_up()
    assert report["rows"]["inserted"] + report["rows"]["upserted"] <= 300, report["rows"]
    other.insert(100)
    other.drop()
    mine.insert(50)
    scene.table("other", plain()).create().insert(20)
    migrans.run_until_caught_up()
    with scene.target.client() as client:
        assert not client.has_collection(other.name)
    scene.table("other", plain()).drop()
    scene.compare()


@pytest.mark.only("kafka", reason="only on Kafka does a topic come into being with its first message")
def test_topics_that_appear_later(own_source):
    """The pipeline runs before there is a single topic; then one appears after the other."""
    scene = own_source()
    assert not _topics(scene)
    migrans = scene.migrans().run()
    time.sleep(2)
    migrans.assert_alive()
    tables, seen = [], [0]
    for i in range(3):
        tables.append(scene.table(f"t{i}", plain(), shards=2).create(load=True))
        tables[-1].insert(20)
        wait_for_rows(scene.target, tables[-1].name, 20)
        seen.append(len(_topics(scene)))
    assert sorted(set(seen)) == seen, f"no new topics: {seen}"
    scene.settle(migrans)


@with_broker
def test_topics_with_names_of_their_own(own_source, scene):
    """Milvus can be told to use topics that somebody else has made."""
    names = [f"{scene.prefix}-orders", f"{scene.prefix}-rest"]
    for name in names:
        scene.mq.create_topic(name) if scene.mq.kind == "kafka" else scene.mq.admin.create_topic(name)
    own = own_source(common__preCreatedTopic__enabled=True, common__preCreatedTopic__names=names,
                     common__preCreatedTopic__timeticker=f"{scene.prefix}-ticks")
    t = own.table("t", plain(), shards=2).create(load=True)
    t.insert(100)
    assert {c.rpartition("_")[0] for c in t.client.describe(t.name).virtual_channel_names} == set(names)
    migrans = own.migrans()
    migrans.run_until_caught_up()
    t.delete(30)
    t.insert(10)
    migrans.run_until_caught_up()
    assert own.compare()[t.full_name].target_rows == 80


@with_broker
def test_position_is_trimmed_away(own_source):
    """Retention took what was not read yet: an error that names what is missing, and never a silent gap."""
    scene = own_source(rootCoord__dmlChannelNum=1)
    t = scene.table("t", plain()).create(load=True)
    t.insert(100)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    t.insert(100)
    time.sleep(1)
    scene.source.kill9()  # so that the end of the topic stays where it is
    [topic] = _topics(scene)
    if scene.mq.kind == "kafka":
        _, end = scene.mq.offsets(topic)[topic]
        scene.mq.trim(topic, end - 3)
        missing = [rf"\b{end - 3}\b"]
    else:
        scene.mq.admin.unload(topic)
        missing = [rf"\b{ledger}\b" for ledger in scene.mq.admin.trim(topic)]
    said = migrans.fail(1, 60)
    assert topic in said and re.search(r"retention|trimmed|gone|missing|gap", said, re.I), said
    assert any(re.search(number, said) for number in missing), f"none of {missing} is named in:\n{said}"
    if scene.mq.kind == "kafka":
        asked = [int(n) for n in re.findall(r"offset (\d+)", said)]
        assert any(n < end - 3 for n in asked), f"where reading would go on is not named in:\n{said}"
    migrans.fail(1, 60)  # and again: it does not get used to it
    assert rows_at(scene.target, t.name) == 100, "it went on over the gap"


@with_broker
def test_what_was_read_may_be_trimmed(own_source):
    """Only what is still to come has to be there; and `earliest` begins with what there is."""
    scene = own_source(rootCoord__dmlChannelNum=1)
    old, t = scene.table("old", plain()).create(load=True), scene.table("t", plain()).create(load=True)
    old.insert(100)
    t.insert(100)
    migrans = scene.migrans().run()
    wait_for_rows(scene.target, t.name, 100)
    # The position that is recorded has to be behind all of this.
    time.sleep(1)
    [topic] = _topics(scene)
    if scene.mq.kind == "kafka":
        scene.mq.trim(topic, scene.mq.offsets(topic)[topic][1])
    else:
        scene.mq.admin.unload(topic)
        time.sleep(1.5)  # until ticks are in the next ledger, and the position with them
        assert scene.mq.admin.trim(topic)
    time.sleep(1)
    migrans.stop()
    t.insert(50)
    old.delete(10)
    migrans.run_until_caught_up()
    scene.compare()
    rest = scene.migrans(settings={"source.start": "earliest", "target.adopt": True}, name="rest")
    rows = rest.run_until_caught_up()["rows"]
    assert rows["inserted"] + rows["upserted"] == 50, rows


@with_broker
def test_topic_is_gone(own_source):
    """Somebody deleted it: an error that names it, or waiting that says so; never an end as if all had been read."""
    scene = own_source(rootCoord__dmlChannelNum=1)
    t = scene.table("t", plain()).create(load=True)
    t.insert(100)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    scene.source.kill9()
    [topic] = _topics(scene)
    scene.mq.delete_topic(topic) if scene.mq.kind == "kafka" else scene.mq.admin.delete_topic(topic)
    migrans.run("--until", "caught-up")
    until(lambda: not migrans.alive or any("waiting" in line and topic in line for line in migrans.said().splitlines()), 60, "a word on the topic")
    if migrans.alive:
        migrans.kill9()
    else:
        migrans.expect(1, 1)
        assert topic in migrans.said()
    assert rows_at(scene.target, t.name) == 100


def _is_insert(message: bytes) -> bool:
    return msg_pb2.TimeTickMsg.FromString(message).base.msg_type == common_pb2.Insert


@pytest.mark.only("kafka", reason="only on Kafka can messages be that large: Pulsar and Milvus' own queue end at 5 MiB")
def test_messages_of_16_mib(scene):
    """The largest that the broker takes, compressed and not. Milvus itself writes none above 10 MB, so this one is ours; the
    source takes it in like its own."""
    t = scene.table("t", plain(dim=1024)).create(load=True)
    t.insert(5)
    description = t.client.describe(t.name)
    fields = {f.name: f.fieldID for f in description.schema.fields}
    [topic] = description.physical_channel_names
    # A message like the one that Milvus wrote, for the same segment.
    written = [msg_pb2.InsertRequest.FromString(m) for m in scene.mq.messages(topic) if _is_insert(m)]
    [written] = [m for m in written if m.collectionID == description.collectionID]
    for number, codec in enumerate(("none", "zstd")):
        rows = 3900
        keys = t.new_keys(rows)
        # Later than the ticks that are on their way.
        ts = (int(time.time() * 1000) + 3000 << 18) + number
        request = msg_pb2.InsertRequest()
        request.CopyFrom(written)
        for repeated in ("timestamps", "rowIDs", "fields_data"):
            request.ClearField(repeated)
        request.base.msgID = ts
        request.timestamps.extend([ts] * rows)
        request.rowIDs.extend(range(ts, ts + rows))
        request.num_rows = rows
        for field, values in t.columns(keys):
            data = schema_pb2.FieldData.FromString(encode_column(field, values))
            data.field_id = fields[field.name]
            request.fields_data.append(data)
        message = request.SerializeToString()
        assert 15 << 20 < len(message) < 16 << 20, len(message)
        scene.mq.produce(topic, message, **{"compression.type": codec})
        t.live["_default"] += keys
    time.sleep(4)
    migrans = scene.migrans(settings={"delivery.memory": "32MiB", "delivery.batch": "8MiB"})
    lines = migrans.tail("--count", "--json")
    assert str(rows * 2 + 5) in lines, lines
    migrans.run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == 2 * rows + 5
