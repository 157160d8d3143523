"""What there is beside rows, and how it follows: names, aliases, renames, properties, load states, who may do what."""

import json
import re
import signal
import time

import pytest
from conftest import Scene, prefix_of, until, wait_for_key

from testbed import Milvus, Workload, compare, plain

once = pytest.mark.only("rocksmq", reason="comes out of the catalog and not through the queue")


@pytest.fixture
def names(scene):
    """For a test that uses other names on the target: they are gone afterwards."""
    made: list[str] = []
    yield made
    for m in scene.pipelines:
        m.process.kill()
    with scene.target.client() as all_:
        databases = all_.list_databases()
    for database in {name.split(".")[0] for name in made} & set(databases):
        with scene.target.client(database) as client:
            for name in client.list_collections():
                if f"{database}.{name}" in made:
                    for alias in list(client.describe(name).aliases):
                        client.drop_alias(alias)
                    client.drop_collection(name)
            if database != "default":
                client.drop_database(database)
    _without_aliases(scene)


@pytest.fixture
def aliases(scene):
    yield
    for m in scene.pipelines:
        m.process.kill()
    _without_aliases(scene)


def _without_aliases(scene) -> None:
    """Milvus drops nothing that has an alias."""
    for server in (scene.source, scene.target):
        with server.client() as client:
            for name in client.list_collections():
                if name.startswith(scene.prefix):
                    for alias in list(client.describe(name).aliases):
                        client.drop_alias(alias)


def _meant(server, name: str, database: str = "default") -> str:
    with server.client(database) as client:
        return client.meant_by(name)


# --- other names on the target ---------------------------------------------------------------------------------------------
@once
def test_other_names_on_the_target(scene, names):
    """One collection by an entry of its own, the others by their database's; partitions, indexes, aliases and grants go along."""
    archive = f"archive_{scene.prefix.split('_')[0]}"
    a, b = scene.table("a", plain(), shards=2).create(load=True), scene.table("b", plain()).create()
    a.create_partition("p")
    a.insert(200, "p")
    b.insert(100)
    alias, of_other = scene.name("alias"), scene.name("of_other")
    a.client.create_alias(alias, a.name)
    b.client.create_alias(of_other, b.name)
    renamed = {a.full_name: f"{archive}.{a.name}", b.full_name: f"default.{scene.name('other')}"}
    names += renamed.values()
    migrans = scene.migrans(settings={"source.milvus.uri": scene.source.uri,
                                      "target.names": {"default": archive, b.full_name: renamed[b.full_name]}})
    checked = migrans.check()
    assert checked.returncode == 0 and f"{b.full_name} ({renamed[b.full_name]} on the target)" in checked.stdout, checked.stdout + checked.stderr
    report = migrans.run_until_caught_up()
    assert {c["name"]: c["on_target"] for c in report["collections"]} == renamed
    patterns = [scene.pattern]
    compare(scene.source, scene.target, patterns, renamed=renamed).assert_equal()
    assert until(lambda: _meant(scene.target, alias, archive), 20, "the alias") == a.name
    assert not _meant(scene.target, a.name) and not _meant(scene.target, alias)
    assert until(lambda: _meant(scene.target, of_other), 20, "an alias in the database of its collection") == scene.name("other")

    migrans.run()
    a.delete(20, "p")
    a.drop_partition("p")
    a.create_partition("p")
    a.insert(60, "p")
    b.upsert(30, fresh=10)
    b.create_index("FLAT", metric_type="L2")
    b.load()
    until(lambda: scene.target.client("default").load_state(scene.name("other")) == "Loaded", 60, "b is loaded at the target")
    migrans.stop()
    migrans.run_until_caught_up()
    compare(scene.source, scene.target, patterns, renamed=renamed).assert_equal()
    verified = migrans._command("verify", "--json", "-", timeout=120)
    found = json.loads(verified.stdout)
    assert verified.returncode == 0 and found["outcome"] == "equal", verified.stdout + verified.stderr
    assert {c["name"]: c["on_target"] for c in found["collections"]} == renamed
    assert sum(p["source_rows"] for c in found["collections"] for p in c["partitions"]) == a.rows + b.rows > 100

    # Under another name it is in another database there, so that its alias has to be made anew.
    b.client.rename(b.name, scene.name("b2"))
    b.name = scene.name("b2")
    b.insert(10)
    migrans.run_until_caught_up()
    names.append(f"{archive}.{b.name}")
    assert _meant(scene.target, of_other, archive) == b.name and not _meant(scene.target, of_other)
    compare(scene.source, scene.target, patterns, renamed={t.full_name: f"{archive}.{t.name}" for t in (a, b)}).assert_equal()

    said = migrans.set("target.names", {"default": "elsewhere"}).fail(1)
    assert re.search(r"\[target.names\] was \[.*\], is \[default = elsewhere\]", said), said


@once
def test_two_collections_of_one_name_are_refused(scene):
    for what in ("a", "b"):
        scene.table(what, plain()).create()
    said = scene.migrans(settings={"target.names": {f"default.{scene.name('a')}": f"default.{scene.name('b')}"}}).fail(1)
    assert f"default.{scene.name('a')} and default.{scene.name('b')} of the source would both be" in said


@once
def test_what_is_adopted_is_found_under_its_own_name(scene, names):
    t = scene.table("t", plain()).create(load=True)
    t.insert(50)
    other = scene.name("kept")
    names.append(f"default.{other}")
    with scene.target.client() as client:
        client.create_collection(other, plain())
    migrans = scene.migrans(settings={"target.names": {t.full_name: f"default.{other}"}})
    assert f"the target already has a collection default.{other}" in migrans.fail(1)
    migrans.set("target.adopt", True).run_until_caught_up()
    compare(scene.source, scene.target, [scene.pattern], rows=True, renamed={t.full_name: f"default.{other}"}).assert_equal()


# --- aliases and renames -----------------------------------------------------------------------------------------------------
@once
def test_aliases_come_move_and_go(scene, aliases):
    a, b = scene.table("a", plain()).create(), scene.table("b", plain()).create()
    first, second = scene.name("first"), scene.name("second")
    a.client.create_alias(first, a.name)
    migrans = scene.migrans().run()
    until(lambda: _meant(scene.target, first) == a.name, 30, "an alias that was there")
    a.client.create_alias(second, a.name)
    a.client.alter_alias(first, b.name)
    until(lambda: _meant(scene.target, first) == b.name and _meant(scene.target, second) == a.name, 30, "an alias that moved, and a new one")
    a.client.drop_alias(first)
    until(lambda: not _meant(scene.target, first), 30, "an alias that was dropped")
    migrans.stop()
    # While nobody looks: the alias moves, its collection goes, and another one gets that name.
    a.client.alter_alias(second, b.name)
    a.drop()
    b.client.create_alias(a.name, b.name)
    migrans.run_until_caught_up()
    assert _meant(scene.target, second) == b.name and _meant(scene.target, a.name) == b.name
    with scene.target.client() as client:
        assert [n for n in client.list_collections() if n.startswith(scene.prefix)] == [b.name]


def test_rename_under_a_running_writer(scene):
    """Rows before it are under the old name, those after it under the new one; in the end both sides are the same."""
    t = scene.table("old", plain(), shards=2).create(load=True)
    t.insert(300)
    migrans = scene.migrans().run()
    wait_for_key(scene.target, t, t.live["_default"][0])
    work = Workload([t], seed=5, batch=50, ddl=False).start(rate=25, tolerant=True)
    for i, what in enumerate(("new", "newer", "old", "newest")):
        time.sleep(1)
        name = scene.name(what)
        t.client.rename(t.name, name)
        t.name = name
        if i == 1:
            migrans.kill9()
            migrans.run()
    time.sleep(1)
    work.stop()
    t.resync()
    [key] = t.insert(1)
    wait_for_key(scene.target, t, key)
    scene.settle(migrans)
    with scene.target.client() as client:
        assert [n for n in client.list_collections() if n.startswith(scene.prefix)] == [t.name]


@once
def test_names_that_are_exchanged_while_nobody_looks(scene):
    a, b = scene.table("a", plain(dim=8)).create(load=True), scene.table("b", plain(dim=24)).create(load=True)
    a.insert(50)
    b.insert(70)
    migrans = scene.migrans()
    migrans.run_until_caught_up()
    one, other, aside = a.name, b.name, scene.name("aside")
    a.client.rename(one, aside)
    b.client.rename(other, one)
    a.client.rename(aside, other)
    a.name, b.name = other, one
    new = scene.table("aside", plain()).create()
    for t in (a, b, new):
        t.insert(10)
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_a_collection_goes_to_another_database(scene, names):
    """Milvus moves none that has an alias: its alias is dropped before and made anew after, here as there."""
    t, database, alias = scene.table("t", plain()).create(load=True), f"other_{scene.prefix.split('_')[0]}", scene.name("alias")
    t.insert(50)
    t.client.create_alias(alias, t.name)
    t.client.create_database(database)
    moved = f"{database}.{t.name}"
    names.append(moved)
    migrans = scene.migrans(collections=[scene.pattern, f"{database}.*"])
    migrans.run_until_caught_up()
    t.client.drop_alias(alias)
    t.client.rename(t.name, t.name, database)
    with scene.source.client(database) as t.client:
        t.client.create_alias(alias, t.name)
        t.insert(20)
        migrans.run_until_caught_up()
        assert _meant(scene.target, alias, database) == t.name and not _meant(scene.target, alias)
        compare(scene.source, scene.target, [scene.pattern, moved]).assert_equal()
        t.client.drop_alias(alias)
        t.client.drop_collection(t.name)
        t.client.drop_database(database)
    migrans.run_until_caught_up()
    with scene.target.client() as client:
        assert database not in client.list_databases()


@once
def test_a_rename_into_the_selection_is_refused(scene):
    yes, no = scene.table("yes", plain()).create(), scene.table("no", plain()).create()
    yes.insert(10)
    no.insert(10)
    migrans = scene.migrans(exclude=[no.full_name])
    migrans.run_until_caught_up()
    no.client.rename(no.name, scene.name("maybe"))
    said = migrans.fail(1)
    assert f"default.{scene.name('maybe')}" in said and "was not selected before" in said
    no.client.rename(scene.name("maybe"), no.name)
    migrans.run_until_caught_up()
    yes.client.rename(yes.name, scene.name("elsewhere"))
    migrans.run_until_caught_up()
    compare(scene.source, scene.target, [f"default.{scene.name('elsewhere')}"]).assert_equal()


# --- killed in the middle ----------------------------------------------------------------------------------------------------
@once
@pytest.mark.limit(120)
def test_killed_in_the_middle_of_a_step(scene, aliases):
    """A rename and an alias that moves, with a death at each point of a step; what was begun is finished first."""
    t, other = scene.table("t0", plain()).create(load=True), scene.table("other", plain()).create()
    t.insert(100)
    alias = scene.name("alias")
    t.client.create_alias(alias, t.name)
    migrans = scene.migrans(settings={"delivery.call_deadline": "1s"})
    migrans.run_until_caught_up()
    for i, point in enumerate(("ddl.before", "intent.before", "intent.recorded", "ddl.unchecked", "ddl.applied", "ddl.recorded"), 1):
        for kind in ("rename", "alias"):
            if kind == "rename":
                t.client.drop_alias(alias)
                migrans.run_until_caught_up()
                name = scene.name(f"t{i}")
                t.client.rename(t.name, name)
                t.name = name
            else:
                t.client.create_alias(alias, (other if i % 2 else t).name)
            migrans.run("--until", "caught-up", env={"MIGRANS_FAIL_AT": point})
            assert migrans.wait(60) == -signal.SIGKILL, f"{point} of {kind}\n{migrans.log_tail()}"
            t.insert(5)
            migrans.run_until_caught_up()
            assert _meant(scene.target, t.name) == t.name, (point, kind)
        assert _meant(scene.target, alias) == (other if i % 2 else t).name, point
    scene.compare()


# --- properties and load states ----------------------------------------------------------------------------------------------
@once
def test_loads_with_partitions_and_properties(scene):
    t = scene.table("t", plain(), properties={"collection.ttl.seconds": "86400"}).create()
    for p in ("a", "b", "c"):
        t.create_partition(p)
        t.insert(20, p)
    t.create_index("FLAT", metric_type="L2")
    t.load(["a", "b"])
    migrans = scene.migrans().run()

    def loaded():
        with scene.target.client() as client:
            return [p for p in client.list_partitions(t.name) if client.load_state(t.name, [p]) == "Loaded"]
    until(lambda: loaded() == ["a", "b"], 60, "two partitions at the target")
    t.client.release(t.name, ["a"])
    until(lambda: loaded() == ["b"], 60, "one of them is released")
    t.load(["c"])
    until(lambda: loaded() == ["b", "c"], 60, "another one is loaded")
    t.client.release(t.name)
    until(lambda: loaded() == [], 60, "all is released")
    t.load()
    until(lambda: len(loaded()) == 4, 60, "all is loaded")
    scene.settle(migrans)


# --- who may do what -----------------------------------------------------------------------------------------------------------
@once
@pytest.mark.limit(240)
def test_roles_grants_and_users(request):
    """Both servers ask for passwords. What is told of users that are missing, and what comes once they are there."""
    source, target = (Milvus(f"{name}-auth", "by-dev", auth=True) for name in ("source", "target"))
    scene = Scene(source, target, prefix_of(request))
    request.node.scene = scene
    try:
        source.start(), target.start()
        _roles_grants_and_users(scene)
    finally:
        for m in scene.pipelines:
            m.discard()
        source.discard(), target.discard()


def _roles_grants_and_users(scene) -> None:
    t = scene.table("t", plain()).create()
    t.insert(20)
    other = f"default.{scene.name('new')}"
    with scene.source.client() as s, scene.target.client() as d:
        for user in ("ann", "bob"):
            s.create_user(user, "secret-123")
        d.create_user("ann", "another-456")
        d.create_user("local", "another-456")
        d.create_role("local_role")
        for role in ("reader", "writer"):
            s.create_role(role)
        s.bind("ann", "reader")
        s.bind("bob", "writer")
        s.grant("reader", "Collection", t.name, "Query")
        s.grant("reader", "Collection", "not_selected", "Query")
        s.grant("writer", "Global", "*", "CreateCollection")
        s.grant("writer", "Collection", "*", "Insert")
        migrans = scene.migrans(settings={"target.names": {t.full_name: other}, "delivery.call_deadline": "1s"})
        migrans.run_until_caught_up()
        assert set(d.roles()) == {"admin", "public", "local_role"}, "without being asked for, nothing follows"

        migrans.set("catalog.rbac", True).run_until_caught_up()
        said = migrans.said()
        assert len(re.findall("have to be created there by hand", said)) == 1 and "1 user(s) of the source" in said and ": bob;" in said, said
        assert "secret-123" not in said and d.users() == {"root", "ann", "local"}
        roles = d.roles()
        assert set(roles) == {"admin", "public", "local_role", "reader", "writer"}
        assert (roles["local_role"], roles["reader"], roles["writer"]) == (set(), {"ann"}, set())
        assert d.grants("reader") == {("Collection", scene.name("new"), "Query")}
        assert d.grants("writer") == {("Global", "*", "CreateCollection"), ("Collection", "*", "Insert")}

        d.create_user("bob", "made-by-hand-789")
        migrans.run()
        until(lambda: d.roles()["writer"] == {"bob"}, 30, "a user that was made by hand has its role")
        s.grant("reader", "Collection", t.name, "Search")
        s.grant("reader", "Collection", t.name, "Query", revoke=True)
        s.bind("ann", "writer")
        s.bind("ann", "reader", remove=True)
        until(lambda: d.grants("reader") == {("Collection", scene.name("new"), "Search")}, 30, "a grant and a revocation")
        until(lambda: d.roles()["writer"] == {"ann", "bob"} and d.roles()["reader"] == set(), 30, "other roles")
        s.grant("reader", "Collection", t.name, "Search", revoke=True)
        s.grant("reader", "Collection", "not_selected", "Query", revoke=True)
        s.drop_role("reader")
        until(lambda: "reader" not in d.roles(), 30, "a role that was dropped")
        migrans.stop()
        assert set(d.roles()) == {"admin", "public", "local_role", "writer"} and d.users() == {"root", "ann", "bob", "local"}
        # The first step of a run looks for the users, and changes nothing.
        for point in ("intent.recorded:2", "ddl.unchecked", "ddl.recorded:2"):
            s.create_role(f"late_{point.partition('.')[0]}_{len(d.roles())}")
            migrans.run(env={"MIGRANS_FAIL_AT": point})
            assert migrans.wait(60) == -signal.SIGKILL, migrans.log_tail()
            migrans.run_until_caught_up()
            assert set(d.roles()) - {"local_role"} == set(s.roles()), point
        compare(scene.source, scene.target, [scene.pattern], renamed={t.full_name: other}).assert_equal()
