"""`migrans checkpoint`, and what a state folder is refused for: the state can be seen, moved and set back, and whatever is done
with it, the target ends up equal to the source or a start says why not."""

import datetime
import json
import re
import shutil
import time

import pytest
from conftest import Scene, rows_at, wait_for_key, wait_for_rows

from testbed import Milvus, Workload, all_types, plain, rocksmq

once = pytest.mark.only("rocksmq", reason="nothing in it depends on where the messages come from")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- show -------------------------------------------------------------------------------------------------------------------
def test_show(scene):
    """Also while the pipeline runs, and it doesn't disturb it."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    migrans = scene.migrans().run()
    wait_for_key(scene.target, t, t.insert(20)[0])
    seen = []
    for _ in range(5):
        seen.append(migrans.state()["frontier"]["tso"])
        time.sleep(0.6)
    assert seen == sorted(seen) and seen[0] < seen[-1], seen
    running = migrans.state()
    assert not running["clean"] and running["lag_seconds"] < 30 and running["calls_over_in_seconds"] > 0
    assert len(running["positions"]) == 2 and all(re.search(r"\d", place) for place in running["positions"].values())
    assert "not cleanly, or running" in migrans.checkpoint("show")
    migrans.assert_alive()
    migrans.stop()
    stopped = migrans.state()
    assert stopped["clean"] and not stopped["in_doubt"]
    assert [c["name"] for c in stopped["collections"]] == [t.full_name]
    assert stopped["collections"][0]["loaded"]
    assert stopped["source"]["set_up"].startswith("20") and stopped["source"]["revision"] > 1
    text = migrans.checkpoint("show")
    assert t.full_name in text and "cleanly: nothing is in flight" in text, text
    migrans.set("select.collections", ["default.other_*"])
    assert "would be refused: collections in [select] was" in migrans.checkpoint("show")


@once
def test_there_is_no_state_yet(scene):
    migrans = scene.migrans()
    for command in (["show"], ["export", "x"], ["rewind", "--to", "1"], ["reset", "--yes"]):
        assert "there is no state in" in migrans.checkpoint(*command, code=1)
    assert not migrans.state_dir.exists()


# --- rewind -----------------------------------------------------------------------------------------------------------------
def test_rewind(scene):
    """All sorts of changes after a time are applied again: inserts, upserts, deletes, partitions, and collections that were made
    or dropped since."""
    t, gone = scene.table("t", plain(), shards=2).create(load=True), scene.table("gone", plain()).create(load=True)
    t.insert(150)
    gone.insert(20)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    time.sleep(0.5)
    then = _now()
    time.sleep(0.5)
    t.insert(60)
    t.upsert(40, fresh=10)
    t.delete(30)
    t.create_partition("p")
    later = scene.table("later", all_types("varchar"), dynamic=True).create(load=True)
    later.insert(25)
    gone.drop()
    migrans.run_until_caught_up()
    before = migrans.state()
    said = migrans.checkpoint("rewind", "--to", then)
    assert "rewound by" in said and str(before["frontier"]["tso"]) in said, said
    after = migrans.state()
    assert after["frontier"]["tso"] < before["frontier"]["tso"] and not after["clean"] and not after["positions"]
    assert {high["tso"] for high in after["in_doubt"].values()} == {before["frontier"]["tso"]} and len(after["in_doubt"]) == 3
    rows = migrans.run_until_caught_up()["rows"]
    assert rows["inserted"] == 0 and rows["upserted"] >= 60, f"what is in doubt is not inserted: {rows}"
    scene.compare()
    t.insert(10)
    assert migrans.run_until_caught_up()["rows"]["inserted"] == 10
    scene.compare()


@once
def test_rewind_to_the_very_beginning(scene):
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(100)
    t.delete(40)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    migrans.checkpoint("rewind", "--to", "1")
    rows = migrans.run_until_caught_up()["rows"]
    assert rows["inserted"] == 0, rows
    scene.compare()


@once
def test_rewind_where_it_cannot_go(scene):
    scene.table("t", plain()).create(load=True).insert(10)
    migrans = scene.migrans(settings={"source.start": "latest"})
    migrans.run_until_caught_up()
    before = migrans.state()
    assert "is after the frontier" in migrans.checkpoint("rewind", "--to", "2100-01-01T00:00:00Z", code=1)
    said = migrans.checkpoint("rewind", "--to", "2020-01-01T00:00:00Z", code=1)
    assert "where this pipeline began" in said and str(before["began"]["tso"]) in said, said
    migrans.checkpoint("rewind", "--to", "yesterday", code=2)
    assert migrans.state()["frontier"] == before["frontier"]
    migrans.run()
    time.sleep(1.5)
    assert "is in use by another process" in migrans.checkpoint("rewind", "--to", str(before["began"]["tso"]), code=1)
    migrans.stop()


@once
def test_rewind_behind_what_the_queue_holds(scene):
    """The next run says that there is a gap, and what is on the target stays."""
    source = Milvus("trimmed").start()
    other = Scene(source, scene.target, scene.prefix)
    scene.pipelines = other.pipelines
    try:
        t = other.table("t", plain()).create(load=True)
        t.insert(100)
        migrans = other.migrans()
        migrans.run_until_caught_up()
        then = _now()
        for _ in range(4):
            time.sleep(1)
            t.insert(50)
        migrans.run_until_caught_up()
        source.kill9()
        # There are five ticks a second: this keeps what the next run begins at, and nothing of the time to go back to.
        rocksmq.trim(source.rocksmq, "by-dev-rootcoord-dml_", keep=10)
        source.start()
        migrans.run_until_caught_up()
        migrans.checkpoint("rewind", "--to", then)
        said = migrans.fail(1, 60)
        # A collection that is hardly older than that time is looked for where it begins, an older one by the time.
        gap = ["is needed, but what is left in the queue begins at", "is gone from RocksMQ, the first one after it is"]
        assert any(text in said for text in gap) and "by-dev-rootcoord-dml_" in said, said
        migrans.fail(1, 60)
        assert rows_at(scene.target, t.name) == 300
    finally:
        source.discard()


# --- export and import ------------------------------------------------------------------------------------------------------
def test_moved_to_another_folder(scene):
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(80)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    file = migrans.folder / "export.json"
    assert "exported" in migrans.checkpoint("export", str(file))
    assert "there is such a file" in migrans.checkpoint("export", str(file), code=1)
    t.insert(30)
    t.delete(10)
    migrans.set("state_dir", str(migrans.folder / "elsewhere"))
    assert "imported" in migrans.checkpoint("import", str(file))
    migrans.run_until_caught_up()
    scene.compare()
    assert "has a state already" in migrans.checkpoint("import", str(file), code=1)


@once
def test_an_old_export_of_a_running_pipeline(scene):
    """What was applied since it was made is applied again, and no row is there twice."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    migrans = scene.migrans(settings={"delivery.call_deadline": "2s"})
    file = migrans.folder / "export.json"
    with Workload([t], seed=8, ddl=False).start(rate=20) as work:
        migrans.run()
        time.sleep(2.5)
        migrans.checkpoint("export", str(file))
        time.sleep(3)
        migrans.assert_alive()
        migrans.kill9()
        work.stop()
    newer = migrans.state()["frontier"]["tso"]
    assert json.loads(file.read_text())["what"] == "migrans checkpoint"
    migrans.checkpoint("import", str(file), "--force")
    assert migrans.state()["frontier"]["tso"] < newer
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_import_of_what_is_not_ours(scene):
    scene.table("t", plain()).create(load=True).insert(10)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    file = migrans.folder / "export.json"
    migrans.checkpoint("export", str(file))
    foreign = scene.migrans(name="foreign")
    said = foreign.checkpoint("import", str(file), code=1)
    assert "belongs to the pipeline" in said and "foreign" in said, said
    wider = scene.migrans(collections=[scene.pattern, "default.other_*"])
    said = wider.checkpoint("import", str(file), code=1)
    assert "collections in [select] was" in said and "other_*" in said, said
    text = file.read_text()
    damaged = migrans.folder / "damaged.json"
    damaged.write_text(re.sub(r'"frontier": "(\d)', lambda m: f'"frontier": "{(int(m[1]) + 1) % 10}', text))
    assert damaged.read_text() != text
    assert "its checksum is wrong" in migrans.checkpoint("import", str(damaged), "--force", code=1)
    damaged.write_text(text[:len(text) // 2])
    assert "is damaged" in migrans.checkpoint("import", str(damaged), "--force", code=1)
    migrans.run_until_caught_up()


# --- reset ------------------------------------------------------------------------------------------------------------------
@once
def test_reset(scene):
    """The next run stops at what is there, or takes it over."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(100)
    t.delete(20)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    assert "say --yes" in migrans.checkpoint("reset", code=2)
    assert migrans.state_dir.exists()
    migrans.checkpoint("reset", "--yes")
    assert not migrans.state_dir.exists()
    said = migrans.fail(1, 60)
    assert t.name in said and "adopt" in said, said
    migrans.set("target.adopt", True)
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_reset_of_what_is_not_ours_or_in_use(scene):
    scene.table("t", plain()).create(load=True).insert(10)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    other = scene.migrans(name="other", state_dir=migrans.state_dir)
    assert "belongs to the pipeline" in other.checkpoint("reset", "--yes", code=1)
    migrans.run()
    time.sleep(1.5)
    assert "is in use by another process" in migrans.checkpoint("reset", "--yes", code=1)
    migrans.stop()
    migrans.run_until_caught_up()
    scene.compare()


# --- damage -----------------------------------------------------------------------------------------------------------------
@once
def test_a_damaged_state(scene):
    """It is an error with its way out, and the way out leads out."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(50)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    file = migrans.folder / "export.json"
    migrans.checkpoint("export", str(file))
    t.insert(50)
    migrans.run()
    wait_for_rows(scene.target, t.name, 100)
    migrans.kill9()
    log = max(migrans.state_dir.glob("*.log"), key=lambda path: path.stat().st_size)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0x10
    log.write_bytes(data)
    said = migrans.fail(1, 60)
    assert "is damaged" in said and "checkpoint reset" in said and "import" in said, said
    assert "is damaged" in migrans.checkpoint("show", code=1)
    migrans.checkpoint("reset", "--yes")
    migrans.checkpoint("import", str(file))
    migrans.run_until_caught_up()
    scene.compare()


# --- another source -----------------------------------------------------------------------------------------------------------
@once
def test_another_source_cluster_below_the_same_path(scene):
    """Addresses may change, but then the same cluster must be behind them."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(30)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    file = migrans.folder / "export.json"
    migrans.checkpoint("export", str(file))
    other = Milvus("other", scene.source.root_path).start()
    try:
        migrans.set("source.etcd", [other.etcd.endpoint]).set("source.mq", other.mq_settings())
        said = migrans.fail(1, 60)
        assert "another source cluster" in said and "set up at" in said, said
        checked = migrans.check()
        assert checked.returncode == 1 and "another source cluster" in checked.stdout + checked.stderr
        assert "another source cluster" in migrans.checkpoint("import", str(file), "--force", code=1)
        assert rows_at(scene.target, t.name) == 30
    finally:
        other.discard()
    migrans.set("source.etcd", [scene.source.etcd.endpoint]).set("source.mq", scene.source.mq_settings())
    scene.source.restart()
    t.insert(5)
    migrans.run_until_caught_up()
    scene.compare()


@once
@pytest.mark.limit(240)
def test_an_older_state_of_the_source(scene, own_source):
    """An etcd that was put back from a backup lacks collections: they must not be dropped at the target for that."""
    own = own_source()
    source = own.source
    first = own.table("first", plain()).create(load=True)
    first.insert(20)
    migrans = own.migrans()
    migrans.run_until_caught_up()
    source.stop()
    source.etcd.stop()
    data = source.etcd.folder / "etcd-data"
    backup = source.etcd.folder / "backup"
    shutil.copytree(data, backup)
    source.start()
    second = own.table("second", plain()).create(load=True)
    second.insert(30)
    migrans.run_until_caught_up()
    assert rows_at(scene.target, second.name) == 30
    source.kill9()
    source.etcd.stop()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    source.etcd.start()
    said = migrans.fail(1, 60)
    assert "went back to an earlier state" in said and "revision" in said, said
    checked = migrans.check()
    assert checked.returncode == 1 and "went back" in checked.stdout + checked.stderr
    assert rows_at(scene.target, second.name) == 30, "it was dropped"
