"""`migrans verify`: equal where it is, and every sort of difference found and named, also while everything moves."""

import json
import subprocess
import time

import numpy as np
import pytest
from conftest import Scene, until
from test_memory import _resident

from testbed import Table, Workload, all_types, plain
from testbed import client as m
from testbed.migrans import binary, toml

once = pytest.mark.only("rocksmq", reason="it asks the servers; of the queue it sees nothing")
pytestmark = once


class Verified:
    def __init__(self, code: int, report: dict, text: str, peak: float):
        self.code, self.report, self.text, self.peak = code, report, text, peak

    def __getitem__(self, name: str) -> dict:
        return next(c for c in self.report["collections"] if c["name"] == name)

    def partition(self, name: str, partition: str) -> dict:
        return next(p for p in self[name]["partitions"] if p["name"] == partition)


def verify(scene: Scene, migrans, *args: str, code: int | None = 0, patience: str = "1500ms", limit: float = 120) -> Verified:
    """Runs it to its end; `code` is what it has to end with, None if that is to be seen."""
    migrans.settings["source"]["milvus"] = {"uri": scene.source.uri}
    file, out = migrans.folder / "verify.toml", migrans.folder / "verify.json"
    file.write_text(toml(migrans.settings), "utf-8")
    out.unlink(missing_ok=True)
    process = subprocess.Popen([binary(), "verify", file, "--json", out, "--patience", patience, *args],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    peak, deadline = 0.0, time.monotonic() + limit
    while process.poll() is None:
        try:
            peak = max(peak, _resident(process.pid))
        except (FileNotFoundError, ProcessLookupError):
            pass
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.02)
    text, errors = process.communicate()
    print(text, errors)
    assert code is None or process.returncode == code, f"it ended with {process.returncode}\n{text}\n{errors}"
    return Verified(process.returncode, json.loads(out.read_text()) if out.exists() else {}, text, peak)


# --- equal
def test_everything_is_equal_after_a_run(scene):
    """All types, dynamic fields, text keys, partitions, a partition key, a binary vector, an empty collection, keys made by
    the server: equal, with the row counts that the servers themselves give."""
    tables = [scene.table("i", all_types(), dynamic=True, shards=2),
              scene.table("s", all_types("varchar", vector="binary", dim=32), shards=2),
              scene.table("auto", plain(auto_id=True)),
              scene.table("by_key", all_types(partition_key="s"), partitions=4),
              scene.table("empty", plain())]
    work = Workload(tables[:4], seed=5).create(load=True)
    tables[4].create(load=True)
    for t in tables[:4]:
        t.insert(400)
    tables[0].create_partition("p")
    tables[0].insert(150, "p")
    work.run(40)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    found = verify(scene, migrans)
    assert found.report["outcome"] == "equal" and found.report["differences"] == []
    assert {c["name"] for c in found.report["collections"]} == {t.full_name for t in tables}
    for t in tables:
        rows = t.client.count(t.name)
        assert sum(p["source_rows"] for p in found[t.full_name]["partitions"]) == rows
        assert sum(p["target_rows"] for p in found[t.full_name]["partitions"]) == rows
        assert all(p["source_hash"] == p["target_hash"] for p in found[t.full_name]["partitions"])
    assert "source and target are equal" in found.text
    scene.compare()


# --- every sort of difference
@pytest.fixture
def copied(scene):
    """A collection that was copied whole, and its twin on the target, to be spoilt."""
    t = scene.table("t", all_types(), dynamic=True, shards=2).create(load=True)
    t.create_partition("p")
    t.keys = t.insert(300)
    t.others = t.insert(200, "p")
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    twin = Table(scene.target, t.name, t.fields, dynamic=True)
    return t, twin, migrans


def test_a_row_that_is_missing(scene, copied):
    t, twin, migrans = copied
    twin.client.delete(t.name, f"id in [{t.keys[7]},{t.others[3]}]")
    found = verify(scene, migrans, code=1)
    assert {(d["key"], d["partition"], d["kind"]) for d in found.report["differences"]} == {
        (str(t.keys[7]), "_default", "source-only"), (str(t.others[3]), "p", "source-only")}
    part = found.partition(t.full_name, "p")
    assert (part["source_rows"], part["target_rows"], part["source_only"]) == (200, 199, 1)
    assert part["source_hash"] != part["target_hash"]
    assert f"key {t.keys[7]}: on the source only" in found.text and "DIFFER" in found.text


def test_a_row_that_nobody_sent(scene, copied):
    t, twin, migrans = copied
    twin.client.insert(t.name, twin.columns([123456789]))
    found = verify(scene, migrans, code=1)
    [d] = found.report["differences"]
    assert (d["key"], d["kind"]) == ("123456789", "target-only")
    assert found.partition(t.full_name, "_default")["target_rows"] == 301


@pytest.mark.parametrize("what", ["b", "i8", "f", "d", "s", "j", "a_varchar", "a_int64", "v", "$meta"])
def test_a_single_cell(scene, what):
    """One column of one row, of every form."""
    t = scene.table("t", all_types("varchar"), dynamic=True).create(load=True)
    keys = t.new_keys(60)
    columns = t.columns(keys)
    t.client.insert(t.name, columns)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    one = [(f, v[20:21]) for f, v in columns]
    other = {"b": lambda v: ~v, "i8": lambda v: v ^ 1, "f": lambda v: -v, "d": lambda v: -v, "s": lambda v: [v[0][:100] + "!"],
             "j": lambda v: [b'{"other": 1}'], "a_varchar": lambda v: [[*v[0][:3], "more"]], "a_int64": lambda v: [[*v[0][:3], 5]],
             "v": lambda v: np.nextafter(v, np.float32(2)), "$meta": lambda v: [b'{"other": 1}']}[what]
    twin = Table(scene.target, t.name, t.fields, dynamic=True)
    twin.client.upsert(t.name, [(f, other(v) if f.name == what else v) for f, v in one])
    found = verify(scene, migrans, code=1)
    [d] = found.report["differences"]
    assert d["kind"] == "changed" and [c["column"] for c in d["columns"]] == [what], d
    assert d["columns"][0]["source"] != d["columns"][0]["target"]
    assert f"`{what}` is " in found.text


def test_a_key_that_is_there_twice(scene, copied):
    """A query shows it once: only the count tells."""
    t, twin, migrans = copied
    key = t.others[11]
    got = t.client.query(t.name, f"id in [{key}]", [*(f.name for f in t.fields), "$meta"], partitions=["p"])
    fields = {f.name: f for f in [*t.fields, m.Field("$meta", m.JSON)]}
    row = [(fields[c], v) for c, v in got.items() if not c.startswith("a_")]
    # Arrays come as bytes from a query; that of this row are not of interest here.
    row += [(f, [[]]) for f in t.fields if f.type == m.ARRAY]
    twin.client.upsert(t.name, row, "p")
    t.client.upsert(t.name, row, "p")
    assert verify(scene, migrans).report["outcome"] == "equal"
    twin.client.insert(t.name, row, "p")
    found = verify(scene, migrans, code=1)
    part = found.partition(t.full_name, "p")
    assert (part["source_rows"], part["target_rows"]) == (200, 201), part
    assert (part["source_copies"], part["target_copies"]) == (0, 1), part
    assert any("several times" in line for line in found[t.full_name]["problems"])


def test_a_partition_that_is_missing(scene, copied):
    t, twin, migrans = copied
    twin.client.release(t.name, ["p"])
    found = verify(scene, migrans, code=3)
    assert any("partition p is not loaded on the target" in line for line in found[t.full_name]["not_compared"])
    assert found.partition(t.full_name, "p")["outcome"] == "not-compared"
    assert found.partition(t.full_name, "p")["target_rows"] is None
    twin.client.drop_partition(t.name, "p")
    found = verify(scene, migrans, code=1)
    assert "partition p is on the source only" in found[t.full_name]["problems"]
    assert found.partition(t.full_name, "p")["source_rows"] == 200
    assert found.partition(t.full_name, "_default")["outcome"] == "equal"


def test_collections_on_one_side_only_or_not_loaded(scene, copied):
    t, twin, migrans = copied
    only = Table(scene.target, scene.name("only"), plain(), seed=1).create(load=True)
    only.insert(5)
    found = verify(scene, migrans, code=1)
    assert found[only.full_name]["problems"] == ["it is on the target only"]
    assert found[only.full_name]["partitions"][0]["target_rows"] == 5
    assert found[t.full_name]["outcome"] == "equal"
    # A part of it.
    assert verify(scene, migrans, "--collection", t.full_name).report["outcome"] == "equal"
    only.drop()

    twin.client.release(t.name)
    found = verify(scene, migrans, code=3)
    assert any("not loaded on the target" in line for line in found[t.full_name]["not_compared"])
    assert "no differences, but not everything could be compared" in found.text
    twin.client.drop_collection(t.name)
    found = verify(scene, migrans, code=1)
    assert found[t.full_name]["problems"] == ["it is on the source only"]
    assert sum(p["source_rows"] for p in found[t.full_name]["partitions"]) == 500


def test_a_schema_that_differs(scene, copied):
    """The columns that both have are compared all the same."""
    t, twin, migrans = copied
    twin.client.drop_collection(t.name)
    fewer = [f for f in t.fields if f.name != "d"]
    other = Table(scene.target, t.name, fewer, dynamic=True, shards=2).create(load=True)
    assert other
    found = verify(scene, migrans, code=1)
    assert "it has no field `d`" in found[t.full_name]["problems"]
    assert found.partition(t.full_name, "_default")["source_only"] == 300


def test_how_much_is_shown(scene, copied):
    t, twin, migrans = copied
    twin.client.delete(t.name, f"id in [{','.join(map(str, t.keys[:50]))}]")
    found = verify(scene, migrans, "--limit", "7", code=1)
    assert len(found.report["differences"]) == 7
    assert found.partition(t.full_name, "_default")["source_only"] == 50
    assert "and 43 more rows that differ" in found.text


# --- while everything moves
@pytest.mark.limit(240)
def test_beside_a_pipeline_under_a_busy_writer(scene):
    """Rows come and go on both sides all the time; in the end all is found to be equal, and nothing is called a difference."""
    tables = [scene.table("a", plain(), shards=2), scene.table("b", all_types("varchar"), dynamic=True)]
    with Workload(tables, seed=9, batch=60, ddl=False).create(load=True) as work:
        for t in tables:
            t.insert(3000)
        migrans = scene.migrans().run()
        work.run(20).start(rate=15)
        until(lambda: migrans.report_file.exists() and migrans.report()["frontier"], 60, "the pipeline has begun")
        for _ in range(3):
            steps = work.steps
            found = verify(scene, migrans, patience="10s")
            assert found.report["pipeline"]["running"] is not False
            assert found.report["outcome"] == "equal"
            assert work.steps > steps, "nobody wrote meanwhile"
        work.stop()
        migrans.assert_alive()
        # A difference is one while it runs too.
        key = tables[0].live["_default"][0]
        with scene.target.client() as client:
            client.delete(tables[0].name, f"id in [{key}]")
        work.start(rate=15)
        found = verify(scene, migrans, patience="10s", code=1)
        assert [(d["key"], d["kind"]) for d in found.report["differences"]] == [(str(key), "source-only")]
        work.stop()


def test_behind_a_pipeline_that_stands(scene):
    """What is not on the target yet is a difference, and it is said that nobody is going to bring it."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(100)
    migrans = scene.migrans()
    assert verify(scene, migrans, code=1).report["pipeline"] == {"running": False, "frontier": None, "lag_ms": None}
    migrans.run_until_caught_up()
    verify(scene, migrans)
    t.insert(10)
    t.delete(5)
    found = verify(scene, migrans, code=1)
    assert found.report["pipeline"]["running"] is False
    assert "the pipeline does not run, or is stuck" in found.text
    part = found.partition(t.full_name, "_default")
    assert part["source_rows"] == 105 and part["source_only"] + part["target_only"] > 0
    migrans.run_until_caught_up()
    verify(scene, migrans)


# --- how
@pytest.mark.limit(400)
def test_memory_does_not_depend_on_the_rows(scene):
    """400,000 rows of 128 dimensions, about 220 MB."""
    t = scene.table("big", plain(dim=128), shards=2).create(load=True)
    t.bulk(400_000)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    gone = t.live["_default"][123_456]
    with scene.target.client() as client:
        client.delete(t.name, f"id in [{gone}]")
    began = time.monotonic()
    found = verify(scene, migrans, code=1)
    print(f"peak {found.peak:.0f} MB, {time.monotonic() - began:.1f} s")
    assert [d["key"] for d in found.report["differences"]] == [str(gone)]
    assert found.partition(t.full_name, "_default")["source_rows"] == 400_000
    assert found.peak < 150


def test_what_is_wrong_is_said(scene):
    t = scene.table("t", plain()).create(load=True)
    migrans = scene.migrans()

    def fails(code: int, *args: str, **settings) -> str:
        for key, value in settings.items():
            migrans.set(key.replace("__", "."), value)
        migrans.file.write_text(toml(migrans.settings), "utf-8")
        run = subprocess.run([binary(), "verify", migrans.file, *args], capture_output=True, text=True, timeout=60)
        assert run.returncode == code, run.stderr
        return run.stderr

    # Proxies don't tell etcd the port for clients, and nobody listens on Milvus' usual one here, or it is another Milvus.
    assert "[source.milvus]" in fails(1)
    # The proxy of another Milvus.
    said = fails(1, source__milvus={"uri": scene.target.uri})
    assert "not the one whose catalog is in the source's etcd" in said, said
    assert "can't be reached" in fails(1, source__milvus={"uri": "http://127.0.0.1:1"})
    migrans.set("source.milvus", {"uri": scene.source.uri})
    assert "no collection that is selected" in fails(1, "--collection", "default.nothing_like_this")
    assert "has no database" in fails(2, "--collection", "nothing")
    assert t.client.count(t.name) == 0
    out = subprocess.run([binary(), "verify", migrans.file, "--json", "-", "--patience", "1s"], capture_output=True, text=True, timeout=60)
    assert json.loads(out.stdout)["collections"][0]["problems"] == ["it is on the source only"], out
