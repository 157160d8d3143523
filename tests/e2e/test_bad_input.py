"""Whatever is wrong is said once, clearly, in bounded time; nothing is written before it, nothing lost by it."""

import json
import re
import shutil
import subprocess
import time

import pytest
from conftest import Scene, prefix_of, rows_at, wait_for_rows

from testbed import Etcd, Milvus, Workload, plain, rocksmq
from testbed.migrans import binary
from testbed.process import free_ports, temp_dir

pytestmark = pytest.mark.only("rocksmq", reason="what is wrong here has nothing to do with the queue, or only with RocksMQ")
SOON = 60  # seconds within which every one of these has to end


# --- the pipeline file and the command line ------------------------------------------------------------------------------
def _line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(part))


@pytest.mark.parametrize("wrong,near", [("delivery.memroy", "memory"), ("select.colections", "collections"), ("target.tokn", "token"),
                                        ("source.mq.paht", "path"), ("nmae", "name")])
def test_unknown_key(scene, wrong, near):
    migrans = scene.migrans(settings={wrong: "1MiB"})
    said = migrans.fail(2, SOON)
    key = wrong.rpartition(".")[2]
    line = _line_of(migrans.file.read_text(), key)
    assert key in said and f"{near}" in said
    assert re.search(rf"\bline {line}\b|:{line}:\d+", said), f"line {line} is not named in:\n{said}"
    assert str(migrans.file.name) in said


@pytest.mark.parametrize("key,value,expected", [
    ("delivery.memory", "lots", "lots"), ("delivery.max_lag", "200 parsecs", "parsecs"), ("source.mq.type", "rabbit", "rabbit"),
    ("target.type", "milvsu", "milvus"), ("select.collections", [], "collections"), ("source.etcd", [], "etcd"),
    ("target.uri", None, "uri"), ("source.mq.path", None, "path"), ("target.token", "${NO_SUCH_VARIABLE_HERE}", "NO_SUCH_VARIABLE_HERE")])
def test_wrong_value(scene, key, value, expected):
    said = scene.migrans(settings={key: value}).fail(2, SOON)
    assert expected in said


def test_not_toml(scene):
    migrans = scene.migrans()
    migrans.file.write_text("name = \n[source\n")
    migrans.run(write=False).expect(2, SOON)
    assert re.search(r"\bline \d|:\d+:\d+", migrans.said())


def test_missing_file(scene):
    migrans = scene.migrans()
    migrans.run(write=False).expect(2, SOON)
    assert migrans.file.name in migrans.said()


@pytest.mark.parametrize("args", [["run"], ["rnu", "x"], ["run", "x", "--unitl", "caught-up"], ["run", "x", "--until", "tomorrow"]])
def test_bad_usage(args):
    done = subprocess.run([binary(), *args], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 2 and done.stderr.strip()


def test_version():
    done = subprocess.run([binary(), "--version"], capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0 and re.fullmatch(r"migrans \d+\.\d+\.\d+.*", done.stdout.strip())


def test_environment_is_substituted(scene):
    t = scene.table("env", plain()).create()
    t.insert(10)
    migrans = scene.migrans(settings={"target.uri": "${TEST_TARGET_URI}"})
    migrans.run_until_caught_up(env={"TEST_TARGET_URI": scene.target.uri})
    scene.compare()


def test_check(scene):
    """Says what would happen, changes nothing, and names every problem in one go."""
    t = scene.table("c", plain()).create()
    migrans = scene.migrans()
    done = migrans.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert t.name in done.stdout + done.stderr
    with scene.target.client() as client:
        assert not client.has_collection(t.name)
    offline = migrans.set("target.uri", "http://127.0.0.1:1").check("--offline")
    assert offline.returncode == 0, offline.stdout + offline.stderr
    port = free_ports(1)[0]
    migrans.set("source.etcd", [f"http://127.0.0.1:{port}"]).set("source.mq.path", "/no/such/folder")
    done = migrans.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1
    for problem in (f"127.0.0.1:{port}", "127.0.0.1:1", "/no/such/folder"):
        assert problem in said, f"{problem} is not named in:\n{said}"


def test_logs_as_json(scene):
    t = scene.table("j", plain()).create()
    t.insert(10)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    before = len(migrans.process.log_text())
    migrans.run("--until", "caught-up", "--log-format", "json", "--log-level", "debug").expect(0, SOON)
    lines = migrans.process.log_text()[before:].splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict), line


# --- servers that are not there, or want credentials ---------------------------------------------------------------------
def test_unreachable_etcd(scene):
    port = free_ports(1)[0]
    said = scene.migrans(settings={"source.etcd": [f"http://127.0.0.1:{port}"]}).fail(1, SOON)
    assert f"127.0.0.1:{port}" in said


def test_unreachable_target(scene):
    scene.table("t", plain()).create()
    port = free_ports(1)[0]
    said = scene.migrans(settings={"target.uri": f"http://127.0.0.1:{port}"}).fail(1, SOON)
    assert f"127.0.0.1:{port}" in said


def test_target_that_is_something_else(scene):
    """An open port, but no Milvus behind it."""
    scene.table("t", plain()).create()
    said = scene.migrans(settings={"target.uri": scene.target.etcd.endpoint}).fail(1, SOON)
    assert f"127.0.0.1:{scene.target.etcd.port}" in said


@pytest.fixture(scope="module")
def strict_target():
    """Wants root:Milvus, and takes no vectors beyond 64 dimensions."""
    with Milvus("strict", "by-strict", {"proxy.maxDimension": 64}, auth=True) as milvus:
        yield milvus


@pytest.fixture
def strict_scene(pair, strict_target, request):
    scene = Scene(pair.source, strict_target, prefix_of(request))
    request.node.scene = scene
    yield scene
    scene.clean()


@pytest.mark.parametrize("token", ["root:wrong", "nobody:Milvus", None])
def test_wrong_target_credentials(strict_scene, token):
    t = strict_scene.table("t", plain()).create()
    t.insert(10)
    said = strict_scene.migrans(settings={"target.token": token}).fail(1, SOON)
    assert re.search(r"credential|token|auth|password|denied", said, re.I), said
    assert "wrong" not in said and "nobody" not in said, "the token is in the message"


def test_right_target_credentials(strict_scene):
    t = strict_scene.table("t", plain()).create(load=True)
    t.insert(100)
    strict_scene.migrans(settings={"target.token": "${TARGET_TOKEN}"}).run_until_caught_up(env={"TARGET_TOKEN": "root:Milvus"})
    strict_scene.compare()


def test_target_refuses_a_schema(strict_scene):
    """One collection cannot be made there: the error says which and why, and nothing was skipped silently."""
    good = strict_scene.table("good", plain(dim=32)).create()
    wide = strict_scene.table("wide", plain(dim=128)).create()
    good.insert(10)
    wide.insert(10)
    migrans = strict_scene.migrans()
    said = migrans.fail(1, SOON)
    assert wide.name in said and re.search(r"dim", said), said
    # Another selection is another pipeline, which takes over what the first one made.
    strict_scene.migrans(settings={"select.exclude": [wide.full_name], "target.adopt": True}).run_until_caught_up()
    with strict_scene.target.client() as client:
        assert client.has_collection(good.name) and not client.has_collection(wide.name)
    wide.drop()
    strict_scene.compare()


def test_wrong_etcd_credentials(scene):
    """With an etcd that wants a password: a wrong one, none, and then the right one."""
    source = Milvus("guarded").start()
    other = Scene(source, scene.target, scene.prefix)
    scene.pipelines = other.pipelines
    try:
        t = other.table("t", plain()).create()
        t.insert(100)
        time.sleep(1)
        source.kill9()  # it has no way to give a password to its etcd; its log and its catalog stay
        user, password = source.etcd.enable_auth("swordfish")
        for settings in ({}, {"source.etcd_username": user, "source.etcd_password": "wrong-fish"},
                         {"source.etcd_username": "nobody", "source.etcd_password": password}):
            said = other.migrans(settings=settings).fail(1, SOON)
            assert re.search(r"auth|user ?name|password|credential|denied|permission", said, re.I), said
            assert "fish" not in said, "the password is in the message"
        other.migrans(settings={"source.etcd_username": user, "source.etcd_password": "${ETCD_PASSWORD}"}).run_until_caught_up(
            env={"ETCD_PASSWORD": password})
        with scene.target.client() as client:
            client.create_index(t.name, "v", {"index_type": "FLAT", "metric_type": "L2", "params": "{}"})
            client.load(t.name)
            assert client.count(t.name) == 100
    finally:
        source.discard()


# --- folders --------------------------------------------------------------------------------------------------------------
def test_not_a_rocksmq(scene):
    """All at once: each gets some time to become one, since the source may be just starting."""
    scene.table("t", plain()).create().insert(10)
    folder = temp_dir("not-a-mq")
    paths = {"missing": folder / "missing", "empty": folder / "empty", "a file": folder / "file",
             "another RocksDB": scene.source.rocksmq.with_name("rdb_data_meta_kv")}
    paths["empty"].mkdir()
    paths["a file"].write_text("hello")
    assert paths["another RocksDB"].exists()
    runs = {kind: scene.migrans(settings={"source.mq.path": str(path)}).run() for kind, path in paths.items()}
    for kind, migrans in runs.items():
        migrans.expect(1, SOON)
        assert str(paths[kind]) in migrans.said(), f"{kind}: {migrans.said()}"
    shutil.rmtree(folder)


def test_state_of_another_pipeline(scene):
    t = scene.table("t", plain()).create()
    t.insert(10)
    first = scene.migrans(name="first-pipeline")
    first.run_until_caught_up()
    second = scene.migrans(name="second-pipeline", state_dir=first.state_dir)
    said = second.fail(1, SOON)
    assert "first-pipeline" in said and str(first.state_dir) in said, said
    first.run_until_caught_up()
    scene.compare()


def test_two_processes_on_one_state(scene):
    t = scene.table("t", plain()).create(load=True)
    t.insert(10)
    first = scene.migrans(name="shared").run()
    wait_for_rows(scene.target, t.name, 10)
    second = scene.migrans(name="shared", state_dir=first.state_dir)
    said = second.fail(1, SOON)
    assert str(first.state_dir) in said, said
    first.assert_alive()
    t.insert(10)
    scene.settle(first)


def test_state_folder_that_cannot_be_made(scene):
    scene.table("t", plain()).create()
    folder = temp_dir("blocked")
    (folder / "file").write_text("in the way")
    said = scene.migrans(state_dir=folder / "file" / "state").fail(1, SOON)
    assert str(folder / "file") in said, said
    shutil.rmtree(folder)


@pytest.fixture
def small_disk():
    """A file system of 24 MB."""
    folder = temp_dir("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)


def _fill(folder):
    """Takes all the space there is."""
    with open(folder / "filler", "wb", buffering=0) as f:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                pass


def test_full_disk_at_the_start(scene, small_disk):
    t = scene.table("t", plain()).create(load=True)
    t.insert(50)
    _fill(small_disk)
    migrans = scene.migrans(state_dir=small_disk / "state")
    said = migrans.fail(1, SOON)
    assert re.search(r"space|full", said, re.I) and str(small_disk) in said, said
    (small_disk / "filler").unlink()
    migrans.run_until_caught_up()
    scene.compare()


def test_full_disk_while_running(scene, small_disk):
    """It stops with one clear error, or gets by; either way the next start goes on and nothing is lost or doubled."""
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(50)
    migrans = scene.migrans(state_dir=small_disk / "state", settings={"delivery.call_deadline": "2s"}).run()
    wait_for_rows(scene.target, t.name, 50)
    _fill(small_disk)
    with Workload([t], seed=5, ddl=False).start(rate=20) as work:
        deadline = time.monotonic() + 8
        while migrans.alive and time.monotonic() < deadline:
            time.sleep(0.1)
        work.stop()
    if migrans.alive:
        print("the state folder had room enough in what it had allocated already")
        migrans.kill9()
    else:
        migrans.expect(1, 1)
        assert re.search(r"space|full", migrans.said(), re.I), migrans.log_tail()
    (small_disk / "filler").unlink()
    migrans.run_until_caught_up()
    scene.compare()


# --- the target has something in the way ----------------------------------------------------------------------------------
def test_conflict_with_a_collection(scene):
    """Reported before anything is written."""
    mine, other = scene.table("taken", plain()).create(load=True), scene.table("free", plain()).create(load=True)
    mine.insert(10)
    other.insert(10)
    with scene.target.client() as client:
        client.create_collection(mine.name, plain())
        migrans = scene.migrans()
        assert mine.name in migrans.fail(1, SOON)
        assert not client.has_collection(other.name), "something was written before the conflict was reported"
        done = migrans.check()
        assert done.returncode == 1 and mine.name in done.stdout + done.stderr
        client.drop_collection(mine.name)
    migrans.run_until_caught_up()
    scene.compare()


def test_adopt(scene):
    """With adopt = true an equal collection is taken over ..."""
    t = scene.table("taken", plain()).create(load=True)
    t.insert(100)
    with scene.target.client() as client:
        client.create_collection(t.name, plain())
    scene.migrans(settings={"target.adopt": True}).run_until_caught_up()
    scene.compare()


@pytest.mark.parametrize("difference", ["dimension", "field", "key type"])
def test_adopt_with_another_schema(scene, difference):
    """... and a different one refused."""
    t = scene.table("taken", plain(dim=16)).create(load=True)
    t.insert(10)
    schema = {"dimension": plain(dim=32), "field": plain(dim=16)[::2], "key type": plain(dim=16, key="varchar")}[difference]
    with scene.target.client() as client:
        client.create_collection(t.name, schema)
        said = scene.migrans(settings={"target.adopt": True}).fail(1, SOON)
        assert t.name in said, said
        assert client.has_collection(t.name)


def test_adopted_collections_are_not_dropped(scene):
    """The source's drop is not carried to a collection that this pipeline did not make."""
    t = scene.table("adopted", plain()).create()
    t.insert(10)
    with scene.target.client() as client:
        client.create_collection(t.name, plain())
        migrans = scene.migrans(settings={"target.adopt": True})
        migrans.run_until_caught_up()
        t.drop()
        migrans.run_until_caught_up()
        assert client.has_collection(t.name)


# --- the source ------------------------------------------------------------------------------------------------------------
def test_position_is_trimmed_away(scene):
    """Retention took messages that were not read yet: an error that names the range, and never a silent gap."""
    source = Milvus("trimmed").start()
    other = Scene(source, scene.target, scene.prefix)
    scene.pipelines = other.pipelines
    try:
        t = other.table("t", plain()).create(load=True)
        t.insert(200)
        migrans = other.migrans()
        migrans.run_until_caught_up()
        t.insert(200)
        time.sleep(1)
        t.insert(200)
        time.sleep(1)
        source.kill9()
        gone = rocksmq.trim(source.rocksmq, "by-dev-rootcoord-dml_", keep=2)
        source.start()
        said = migrans.fail(1, SOON)
        assert any(topic in said for topic in gone), f"none of the topics {list(gone)} is named in:\n{said}"
        assert re.search(r"retention|trimmed|gone|missing|gap", said, re.I), said
        assert re.search(r"\d{10,}", said), f"no range is named in:\n{said}"
        migrans.fail(1, SOON)  # and again: it does not get used to it
        assert rows_at(scene.target, t.name) == 200, "it went on over the gap"
    finally:
        source.discard()


@pytest.mark.parametrize("version", ["2.2.9", "4.0.0"])
def test_milvus_of_another_age(scene, version):
    """An etcd in which the sessions say so."""
    with Etcd("other-age") as etcd:
        for role in ("rootcoord", "datacoord", "querycoord"):
            session = {"ServerID": 1, "ServerName": role, "Address": "127.0.0.1:1", "Exclusive": True, "TriggerKill": True, "Version": version}
            etcd.put(f"by-dev/meta/session/{role}", json.dumps(session))
        migrans = scene.migrans(settings={"source.etcd": [etcd.endpoint]})
        assert version in migrans.fail(1, SOON)


def test_no_milvus_in_this_etcd(scene):
    """A wrong root path is the likeliest mistake of all: it must not look like an empty source."""
    said = scene.migrans(settings={"source.root_path": "by-mistake"}).fail(1, SOON)
    assert "by-mistake" in said


def test_unknown_collection_is_not_an_error(scene):
    """A pattern may match nothing yet: the collection may come later."""
    migrans = scene.migrans().run()
    time.sleep(2)
    migrans.assert_alive()
    t = scene.table("later", plain()).create(load=True)
    t.insert(10)
    wait_for_rows(scene.target, t.name, 10)
    scene.settle(migrans)
