"""Collections, partitions, indexes, databases and load states change while rows flow."""

import json
import time

import pytest
from conftest import until, wait_for_key

from testbed import Refused, Table, Workload, all_types, compare, plain
from testbed import client as m

once = pytest.mark.only("rocksmq", reason="comes out of the catalog and not through the queue")


@once
def test_schema_attributes(scene):
    fields = all_types("varchar", dim=24)
    fields[0].description = 'the "key"\nof it all – 中文'
    t = scene.table("attrs", fields, dynamic=True, shards=4, description="Ünïcode description, \"quoted\"",
                    consistency=m.STRONG, properties={"collection.ttl.seconds": "86400"}).create()
    u = scene.table("plain", plain(), consistency=m.EVENTUALLY).create()
    t.insert(20)
    scene.migrans().run_until_caught_up()
    scene.compare()
    with scene.target.client() as client:
        assert client.describe(t.name).shards_num == 4
        assert client.describe(u.name).consistency_level == m.EVENTUALLY


@once
def test_altered_properties_follow(scene):
    t = scene.table("ttl", plain()).create(load=True)
    t.insert(10)
    migrans = scene.migrans().run()
    wait_for_key(scene.target, t, t.live["_default"][0])
    t.client.alter_collection(t.name, {"collection.ttl.seconds": "7200"})
    # A 2.3.5 keeps that in memory until it writes the collection for another reason.
    t.client.rename(t.name, scene.name("renamed"))
    t.name = scene.name("renamed")

    def properties():
        with scene.target.client() as client:
            return {p.key: p.value for p in client.describe(t.name).properties}
    until(lambda: properties() == {"collection.ttl.seconds": "7200"}, 30, "the property at the target")
    scene.settle(migrans)


KINDS = {"FLAT": {}, "IVF_FLAT": {"nlist": 64}, "IVF_SQ8": {"nlist": 32}, "IVF_PQ": {"nlist": 16, "m": 4, "nbits": 8},
         "HNSW": {"M": 12, "efConstruction": 90}, "SCANN": {"nlist": 16}, "AUTOINDEX": {}}
BINARY_KINDS = {"BIN_FLAT": {}, "BIN_IVF_FLAT": {"nlist": 16}}


@once
def test_index_kinds(scene):
    """Every kind with every metric, and indexes of other fields."""
    refused = []
    for kinds, fields, metrics in ((KINDS, plain(dim=16), ("L2", "IP", "COSINE")),
                                   (BINARY_KINDS, all_types(vector="binary", dim=32), ("HAMMING", "JACCARD"))):
        for kind, params in kinds.items():
            for metric in metrics:
                t = scene.table(f"{kind}_{metric}".lower(), fields).create()
                try:
                    t.client.create_index(t.name, "v", {"index_type": kind, "metric_type": metric, "params": json.dumps(params)}, f"idx_{metric}")
                except Refused as e:  # by the source itself: then there is nothing to copy
                    refused.append(f"{kind} {metric}: {e.reason}")
                t.insert(2)
    for field, kind in (("s", "Trie"), ("i64", "STL_SORT"), ("d", "STL_SORT"), ("s", "INVERTED")):
        try:
            t.client.create_index(t.name, field, {"index_type": kind}, f"on_{field}")
        except Refused as e:
            refused.append(f"{field} {kind}: {e.reason}")
    print("refused by the source:", *refused, sep="\n  ")
    scene.migrans().run_until_caught_up()
    report = scene.compare(rows=False)
    assert len(report.collections) == len(KINDS) * 3 + len(BINARY_KINDS) * 2


@once
def test_index_is_dropped_and_made_again(scene):
    t = scene.table("idx", plain()).create()
    t.create_index("HNSW", metric_type="L2", M=8, efConstruction=40)
    t.client.create_index(t.name, "id", {"index_type": "STL_SORT"}, "by_id")
    t.insert(50)
    migrans = scene.migrans().run()
    until(lambda: _indexes(scene, t) == {"v": "HNSW", "by_id": "STL_SORT"}, 60, "two indexes at the target")
    t.client.drop_index(t.name, "v", "v")
    t.client.drop_index(t.name, "id", "by_id")
    t.create_index("IVF_FLAT", "another", metric_type="IP", nlist=8)
    until(lambda: _indexes(scene, t) == {"another": "IVF_FLAT"}, 60, "the other index at the target")
    t.load()
    until(lambda: scene.target.client().load_state(t.name) == "Loaded", 60, "loaded at the target")
    t.client.release(t.name)
    scene.settle(migrans)


def _indexes(scene, t: Table) -> dict:
    with scene.target.client(t.database) as client:
        return {i.index_name: dict((p.key, p.value) for p in i.params).get("index_type") for i in client.list_indexes(t.name)}


@once
def test_load_states(scene):
    """Not loaded, loaded, loaded in part, released again."""
    none, all_, part, again = (scene.table(n, plain()).create() for n in ("none", "all", "part", "again"))
    for t in (none, all_, part, again):
        t.create_partition("a")
        t.create_partition("b")
        t.insert(20, "a")
        t.create_index("FLAT", metric_type="L2")
    all_.load()
    part.load(["a"])
    again.load()
    again.client.release(again.name)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    scene.compare()
    all_.client.release(all_.name, ["b"])
    part.client.load(part.name, ["b"])
    none.load()
    migrans.run_until_caught_up()
    scene.compare()


@pytest.mark.only("rocksmq", reason="the random workloads do that on every queue")
def test_partitions_between_rows(scene):
    """Create a partition, insert, drop it, insert, make it again, while migrans follows."""
    t = scene.table("p", plain(), shards=2).create(load=True)
    migrans = scene.migrans().run()
    t.insert(50)
    for i in range(4):
        t.create_partition("x")
        t.insert(100, "x")
        t.insert(20)
        t.delete(10, "x", everywhere=False)
        t.drop_partition("x")
        t.insert(20)
    t.create_partition("x")
    t.insert(30, "x")
    scene.settle(migrans)


def test_backlog_with_ddl_in_between(scene):
    """The same, with migrans not running: everything is history when it starts."""
    t = scene.table("p", plain(), shards=2).create()
    gone = scene.table("gone", plain()).create()
    gone.insert(300)
    for i in range(3):
        t.create_partition(f"p{i}")
        t.insert(100, f"p{i}")
    t.drop_partition("p1")
    t.create_partition("p1")
    t.insert(30, "p1")
    gone.drop()
    t.create_index("HNSW")
    t.load()
    t.insert(10)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    scene.compare()
    with scene.target.client() as client:
        assert not client.has_collection(gone.name)


def test_dropped_and_made_again_under_one_name(scene):
    """Again and again while migrans runs, with another schema each time: rows of the former one must never get in."""
    migrans = scene.migrans().run()
    for i in range(6):
        t = scene.table("again", plain(dim=8 + 8 * (i % 3)) if i % 2 else all_types(dim=16), seed=i, shards=1 + i % 2).create()
        t.insert(200)
        if i % 3 == 1:
            time.sleep(1)
        t.delete(50)
        if i < 5:
            t.drop()
            t = None
    t.load()
    scene.settle(migrans)


def test_dropped_and_made_again_while_stopped(scene):
    t = scene.table("again", plain(dim=16)).create(load=True)
    t.insert(300)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    t.drop()
    t = scene.table("again", plain(dim=32), shards=2).create(load=True)
    t.insert(100)
    migrans.run_until_caught_up()
    assert scene.compare()[t.full_name].target_rows == 100
    t.drop()
    migrans.run_until_caught_up()
    with scene.target.client() as client:
        assert not client.has_collection(t.name)


@pytest.mark.limit(240)
def test_64_collections_while_running(scene):
    """128 vchannels on 16 pchannels, made while migrans runs: topics are opened as they are needed."""
    migrans = scene.migrans().run()
    tables = []
    for i in range(64):
        t = scene.table(f"c{i:02}", plain(dim=8), shards=2).create()
        t.insert(20)
        tables.append(t)
    work = Workload(tables, seed=50, batch=20, ddl=False).run(150)
    for t in tables[::7]:
        t.drop()
    work.tables = [t for i, t in enumerate(tables) if i % 7]
    work.run(50)
    if migrans.alive:
        migrans.stop()
    migrans.run_until_caught_up()
    scene.compare(rows=False)
    # Loading all of them would take minutes: the attributes of all, the rows of these.
    compare(scene.source, scene.target, [t.full_name for t in work.tables[:8]]).assert_equal()


@once
def test_databases(scene):
    """A database is made when its first collection comes, the same collection name lives in two."""
    scene.database = f"db_{scene.prefix.split('_')[0]}"
    with scene.source.client() as client:
        client.create_database(scene.database)
    t = scene.table("c", plain()).create(load=True)
    t.insert(50)
    twin = scene.table("c", plain(dim=8), database="default").create(load=True)
    twin.insert(70)
    patterns = [scene.pattern, f"default.{scene.prefix}_*"]
    migrans = scene.migrans(collections=patterns)
    migrans.run_until_caught_up()
    t.insert(5)
    twin.delete(5)
    migrans.run_until_caught_up()
    report = compare(scene.source, scene.target, patterns).assert_equal()
    assert len(report.collections) == 2


@once
def test_only_what_is_selected(scene):
    """Exclude wins; what was not selected is neither created nor dropped at the target."""
    yes, no = scene.table("yes_1", plain()).create(load=True), scene.table("no_1", plain()).create()
    yes.insert(10)
    no.insert(10)
    with scene.target.client() as client:
        client.create_collection(scene.name("bystander"), plain())
    scene.migrans(collections=[scene.pattern], exclude=[f"default.{scene.name('no_*')}", f"default.{scene.name('bystander')}"]).run_until_caught_up()
    with scene.target.client() as client:
        assert [n for n in client.list_collections() if n.startswith(scene.prefix)] == [scene.name("bystander"), yes.name]
