"""Every data type, every kind of key, and everything that can happen to a row."""

import numpy as np
import pytest

from testbed import Workload, all_types, plain
from testbed import client as m
from testbed.workload import NASTY

once = pytest.mark.only("rocksmq", reason="a message has the same bytes on every queue, and what becomes of them is the same")


@once
@pytest.mark.parametrize("key", ["int64", "varchar"])
@pytest.mark.parametrize("vector", ["float", "binary"])
def test_every_type(scene, key, vector):
    t = scene.table("all", all_types(key, vector=vector, dim=32), dynamic=True, shards=2, description="every type").create(load=True)
    t.insert(700)
    t.upsert(150, fresh=20)
    t.delete(120)
    t.reinsert(60)
    t.insert(1)
    report = scene.migrans().run_until_caught_up()
    assert scene.compare()[t.full_name].source_rows == t.rows
    assert report["rows"]["inserted"] + report["rows"]["upserted"] >= t.rows


@once
def test_nasty_text_keys(scene):
    """The key has to survive the delete expression, whatever is in it."""
    t = scene.table("keys", plain(key="varchar"), shards=3).create(load=True)
    keys = list(dict.fromkeys([*NASTY, *(f"{a}{b}" for a in NASTY for b in ("", "x", '"', "\\")), *(f"k{i}" for i in range(50))]))
    t.insert(0, keys=keys)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    scene.compare()
    t.client.delete(t.name, f"id in [{','.join(map(m.quote, keys[::2]))}]")
    t.client.upsert(t.name, t.columns(keys[1::4]))
    migrans.run_until_caught_up()
    assert scene.compare()[t.full_name].source_rows == len(keys) - len(keys[::2])


@once
@pytest.mark.parametrize("key", ["int64", "varchar"])
def test_auto_id(scene, key):
    """The keys that the source made are kept: the target takes them, and says so in its schema."""
    t = scene.table("auto", plain(key=key, auto_id=True), shards=2).create(load=True)
    t.insert(500)
    t.delete(100)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    t.insert(200)
    t.delete(50)
    migrans.run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == 550
    with scene.target.client() as client:
        schema = client.describe(t.name).schema
        assert not schema.autoID and not any(f.autoID for f in schema.fields)


@once
@pytest.mark.parametrize("by", ["i64", "s"])
def test_partition_key(scene, by):
    t = scene.table("pk", all_types(partition_key=by), partitions=8, shards=2, dynamic=True).create(load=True)
    t.insert(400)
    t.upsert(100)
    t.delete(80)
    t.reinsert(40)
    scene.migrans().run_until_caught_up()
    scene.compare()


@once
def test_partitions(scene):
    """Deletes in one partition and in all; the same key in two partitions."""
    t = scene.table("parts", plain(), shards=2).create(load=True)
    for p in ("a", "b", "c"):
        t.create_partition(p)
        t.insert(100, p)
    both = t.insert(20, "a")
    t.insert(0, "b", keys=both)
    t.client.delete(t.name, f"id in [{','.join(map(m.quote, both[:10]))}]", "a")
    t.client.delete(t.name, f"id in [{','.join(map(m.quote, both[15:]))}]")
    t.client.upsert(t.name, t.columns(both[10:12]), "b")
    t.delete(30, "c", everywhere=False)
    scene.migrans().run_until_caught_up()
    scene.compare()


def test_delete_and_insert_the_same_key(scene):
    """Close together, in one span, many times: the last one counts."""
    t = scene.table("same", plain(), shards=2).create(load=True)
    migrans = scene.migrans().run()
    keys = t.new_keys(40)
    where = f"id in [{','.join(map(m.quote, keys))}]"
    for i in range(25):
        t.client.insert(t.name, t.columns(keys))
        t.client.delete(t.name, where)
        if i % 5 == 0:
            t.client.upsert(t.name, t.columns(keys[:10]))
            t.client.delete(t.name, where)
    t.client.insert(t.name, t.columns(keys[:25]))
    t.client.upsert(t.name, t.columns(keys[10:35]))
    report = scene.settle(migrans)
    assert report[t.full_name].source_rows == 35


@once
def test_delete_by_expression(scene):
    """Milvus resolves it to keys before it comes to the log."""
    t = scene.table("expr", plain(), shards=2).create(load=True)
    keys = t.new_keys(1000)
    t.client.insert(t.name, [(f, v if f.name != "txt" else [f"n{i % 10}" for i in range(len(keys))]) for f, v in t.columns(keys)])
    assert t.client.count(t.name) == 1000
    t.client.delete(t.name, 'txt == "n3" or id > 0 and txt == "n4"')
    scene.migrans().run_until_caught_up()
    assert scene.compare()[t.full_name].source_rows < 1000


def test_big_rows(scene):
    """Rows near the size of a message; a delete of many keys at once."""
    t = scene.table("big", plain(dim=8192), shards=2).create(load=True)
    t.bulk(300, batch_bytes=8_000_000)
    t.client.delete(t.name, f"id in [{','.join(map(m.quote, t.live['_default'][:100] + list(range(5_000_000, 5_020_000))))}]")
    scene.migrans(settings={"delivery.memory": "64MiB"}).run_until_caught_up()
    assert scene.compare()[t.full_name].source_rows == 200


@once
def test_duplicate_keys_are_carried(scene):
    """A source may hold a key several times (Insert does not check). What it holds is what the target gets."""
    t = scene.table("dups", plain(), shards=2).create(load=True)
    t.insert(50)
    for _ in range(3):
        t.insert(0, keys=[1, 2, 3])
    scene.migrans().run_until_caught_up()
    result = scene.compare(duplicates="equal")[t.full_name]
    assert result.source_rows == result.target_rows == 59


def test_empty_collection(scene):
    t = scene.table("empty", all_types(), dynamic=True).create(load=True)
    scene.migrans().run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == 0


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=once)])
def test_random_workload(scene, seed):
    """Random changes of everything while migrans follows."""
    tables = [scene.table("i", all_types(), seed=seed, dynamic=True, shards=2),
              scene.table("s", all_types("varchar", vector="binary", dim=32), seed=seed, shards=3),
              scene.table("auto", plain(auto_id=True), seed=seed),
              scene.table("pk", all_types(partition_key="i64"), seed=seed, partitions=4)]
    work = Workload(tables, seed=seed).create(load=True)
    work.run(40)
    migrans = scene.migrans().run()
    work.run(200)
    scene.settle(migrans)
    work.run(60)
    scene.settle(migrans)


@once
def test_vectors_are_carried_bit_by_bit(scene):
    t = scene.table("bits", plain(dim=8)).create(load=True)
    keys = t.new_keys(4)
    odd = np.array([[0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.1754942e-38, 0.1]] * 4, np.float32)
    t.client.insert(t.name, [(f, odd if f.name == "v" else v) for f, v in t.columns(keys)])
    scene.migrans().run_until_caught_up()
    scene.compare()
