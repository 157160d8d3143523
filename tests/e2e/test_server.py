"""`migrans serve`: many pipelines in one process, made and watched over HTTP; each on its own, and each there again after a
kill -9."""

import socket
import threading
import time

import pytest
from conftest import rows_at, until, wait_for_rows

from testbed import Table, plain
from testbed.serve import Server, definition, files_others_can_read
from testbed.tls import Authority

pytestmark = pytest.mark.only("rocksmq", reason="the server does not know which queue its pipelines read")
QUICK = {"restart__pause": "200ms", "restart__longest_pause": "500ms"}
WRITE, READ = "write-token-0123456789", "read-token-0123456789"


def pattern(scene, what: str) -> list[str]:
    return [f"default.{scene.name(what)}"]


def lag(server, name: str, stage: str = "durable") -> float:
    return server.metrics()[f'migrans_lag_seconds{{pipeline="{name}",stage="{stage}"}}']


def test_a_pipeline_is_made_changed_paused_and_removed(scene, server):
    t = scene.table("t", plain(), shards=2).create(load=True)
    t.insert(200)
    what = definition(scene.source, scene.target, pattern(scene, "t"), labels={"team": "search"})
    created = server.put("orders", what)
    created.expect(201)
    assert created.headers["location"] == "/api/v1/pipelines/orders"
    wait_for_rows(scene.target, t.name, 200)
    assert server.put("orders", what).expect(200)["state"] == "running", "the same once more changes nothing"
    before = server.get("orders")
    assert (before["created"] == before["changed"], before["labels"], before["definition"]["name"]) == (True, {"team": "search"}, "orders")
    assert list(server.list()) == ["orders"]
    assert server.request("GET", "/api/v1/pipelines?label=team=ads").json == {"pipelines": []}
    until(lambda: server.request("GET", "/api/v1/pipelines/orders/report").json["rows"]["inserted"] == 200, 10, "the report counts the rows")

    seen = until(lambda: (m := server.metrics()) and m.get(
        f'migrans_durable_rows_total{{pipeline="orders",collection="default.{t.name}",operation="insert"}}') == 200 and m, 10, "the metrics count them")
    by_collection = f'{{pipeline="orders",collection="default.{t.name}"}}'
    assert seen[f"migrans_received_rows_total{by_collection}"] == 200 and seen[f"migrans_dispatched_rows_total{by_collection}"] == 200
    assert sum(v for k, v in seen.items() if k.startswith("migrans_channel_durable_rows_total")) == 200
    assert seen[f"migrans_received_bytes_total{by_collection}"] > 200 * 4
    assert seen['migrans_call_seconds_count{pipeline="orders",call="insert"}'] >= 1
    assert seen['migrans_pipeline_state{pipeline="orders",state="running"}'] == 1
    assert all(lag(server, "orders", stage) < 5 for stage in ("received", "dispatched", "durable"))

    # What may change is applied, what may not is refused with why.
    changed = {**what, "delivery": {"max_calls": 2}}
    assert server.put("orders", changed).expect(200)["definition"]["delivery"] == {"max_calls": 2}
    server.wait_for("orders", "running")
    told = server.put("orders", {**what, "select": {"collections": ["default.other"]}}).problem(409, "Conflict")
    assert told["errors"][0]["key"] == "select.collections" and "must stay, since" in told["detail"], told
    assert server.get("orders")["definition"]["select"] == what["select"]

    view = server.post("orders", "pause", {"reason": "the target is being moved"}).expect(200)
    assert (view["state"], view["reason"]["message"]) == ("paused", "the target is being moved")
    t.insert(50)
    time.sleep(1.5)
    assert rows_at(scene.target, t.name) == 200, "nothing comes while it is paused"
    assert lag(server, "orders") >= 1.5, "and its lag grows"
    assert server.post("orders", "pause").expect(200)["state"] == "paused"
    server.post("orders", "resume").expect(200)
    wait_for_rows(scene.target, t.name, 250)
    server.post("orders", "resume").expect(200)

    # Without its state it would take the collection for somebody else's; with it, it goes on.
    assert server.delete("orders").expect(200) == {"removed": []}
    server.request("GET", "/api/v1/pipelines/orders").problem(404, "NotFound")
    assert not any("orders" in sample for sample in server.metrics())
    t.insert(10)
    server.put("orders", what).expect(201)
    wait_for_rows(scene.target, t.name, 260)
    [removed] = server.delete("orders", "remove").expect(200)["removed"]
    assert "state folder" in removed and not (server.data_dir / "pipelines" / "orders").exists()
    scene.compare()


def test_toml_and_a_pipeline_file_come_to_the_same(scene, server):
    t = scene.table("t", plain()).create(load=True)
    t.insert(20)
    migrans = scene.migrans(name="same", state_dir=server.data_dir / "pipelines" / "same")
    migrans.run_until_caught_up()
    text = migrans.file.read_bytes()
    server.put("same", text, headers={"Content-Type": "application/toml"}).expect(201)
    server.wait_for("same", "running")
    t.insert(20)
    wait_for_rows(scene.target, t.name, 40)
    inserted = lambda: server.get("same")["report"]["rows"]["inserted"]  # noqa: E731
    until(lambda: inserted() > 0, 10, "the report counts rows")
    assert inserted() == 20, "it went on where migrans run had stopped"
    assert server.put("same", migrans.settings).expect(200)["created"] == server.get("same")["changed"]


def test_all_come_back_after_a_kill(scene, server):
    tables = {name: scene.table(name, plain()).create(load=True) for name in ("runs", "rests")}
    for name, t in tables.items():
        t.insert(30)
        server.put(name, definition(scene.source, scene.target, pattern(scene, name))).expect(201)
    for t in tables.values():
        wait_for_rows(scene.target, t.name, 30)
    until(lambda: lag(server, "rests") < 2, 10, "the frontier is recorded")
    server.post("rests", "pause", {"reason": "for now"}).expect(200)
    paused_at = time.monotonic()
    server.kill9()
    for t in tables.values():
        t.insert(30)
    server.start()
    wait_for_rows(scene.target, tables["runs"].name, 60)
    view = server.get("rests")
    assert (view["state"], view["reason"]["message"], rows_at(scene.target, tables["rests"].name)) == ("paused", "for now", 30)
    since = time.monotonic() - paused_at
    assert since - 1 <= lag(server, "rests") <= since + 5, "its lag is that of the frontier before the kill"
    assert server.stop() < 10
    server.start()
    assert server.get("rests")["state"] == "paused"
    server.post("rests", "resume").expect(200)
    wait_for_rows(scene.target, tables["rests"].name, 60)
    scene.compare()


def test_one_that_fails_fails_alone(scene, server):
    """Its collection is on the target already; another's source is not there at all. Neither is noticed by the third."""
    tables = {name: scene.table(name, plain()).create(load=True) for name in ("good", "taken")}
    Table(scene.target, scene.name("taken"), plain()).create()
    work = threading.Event()

    def insert():
        while not work.is_set():
            tables["good"].insert(5)
            time.sleep(0.05)
    thread = threading.Thread(target=insert)
    thread.start()
    try:
        server.put("good", definition(scene.source, scene.target, pattern(scene, "good"))).expect(201)
        good = server.wait_for("good", "running")
        tables["taken"].insert(20)
        server.put("taken", definition(scene.source, scene.target, pattern(scene, "taken"), **QUICK)).expect(201)
        lost = definition(scene.source, scene.target, pattern(scene, "lost"), restart__attempts=0)
        lost["source"]["mq"] = {"type": "rocksmq", "path": "/nowhere"}
        server.put("lost", lost).expect(201)
        view = server.wait_for("taken", "retrying")
        assert view["reason"]["kind"] == "Conflict" and scene.name("taken") in view["reason"]["message"] and view["reason"]["hint"], view
        view = server.wait_for("lost", "failed")
        assert view["reason"]["kind"] == "NotFound" and "/nowhere" in view["reason"]["message"], view
        until(lambda: server.get("taken")["failures"] >= 3, 20, "it is tried again and again")
        seen = server.metrics()
        assert seen['migrans_last_error_info{pipeline="taken",kind="Conflict"}'] == 1 and seen['migrans_restarts_total{pipeline="taken"}'] >= 2
        assert seen['migrans_pipelines{state="failed"}'] == 1
        assert lag(server, "good") < 5 and lag(server, "lost") > 0
        assert server.get("good")["state"] == "running" and server.get("good")["changed"] == good["changed"]
        # Once what was in the way is gone, it goes on by itself.
        with scene.target.client() as client:
            client.drop_collection(scene.name("taken"))
        wait_for_rows(scene.target, scene.name("taken"), 20)
        assert server.said().count("pipeline=good") and "pipeline=taken" in server.said(), "lines of the log name their pipeline"
    finally:
        work.set()
        thread.join()
    rows = sum(map(len, tables["good"].live.values()))
    wait_for_rows(scene.target, tables["good"].name, rows)
    server.post("lost", "resume").expect(200)
    server.wait_for("lost", "failed")
    assert server.delete("lost", "remove").problem(409)["detail"], "its queue can't be asked"
    assert server.delete("lost").expect(200) == {"removed": []}


def test_roles_tls_and_secrets(scene, tmp_path):
    authority = Authority(tmp_path / "tls")
    settings = {"variables": ["MY_TOKEN"], "tokens": {"read": [READ], "write": ["${THE_WRITE_TOKEN}"]}}
    with Server(settings, tls=(authority, authority.issue("server")), token=WRITE, level="trace") as server:
        server.start(env={"THE_WRITE_TOKEN": WRITE, "MY_TOKEN": "hush-variable", "OTHER": "hush-other"})
        t = scene.table("t", plain()).create(load=True)
        t.insert(10)
        what = definition(scene.source, scene.target, pattern(scene, "t"), source__milvus__token="hush-literal",
                          source__etcd_username="me", source__etcd_password="${MY_TOKEN}")
        answers = [server.put("p", what)]
        answers[0].expect(201)
        view = server.get("p")
        assert view["definition"]["source"]["milvus"]["token"] == "(secret)", "what is secret is masked"
        assert view["definition"]["source"]["etcd_password"] == "${MY_TOKEN}", "where it comes from is not"
        kafka = {**what, "source": {**what["source"], "mq": {"type": "kafka", "brokers": ["127.0.0.1:1"], "options": {"ssl.key.password": "hush-option"}}}}
        server.put("k", kafka, "?paused=true").expect(201)
        assert server.get("k")["definition"]["source"]["mq"]["options"] == {"ssl.key.password": "(secret)"}

        for method, path, token, status in [
            ("GET", "/api/v1/pipelines", None, 401), ("GET", "/metrics", None, 401), ("GET", "/nothing", None, 401),
            ("GET", "/api/v1/pipelines", WRITE[:-1], 401), ("GET", "/api/v1/pipelines", WRITE + "x", 401),
            ("GET", "/api/v1/pipelines", READ, 200), ("GET", "/api/v1/pipelines/p", READ, 200), ("GET", "/metrics", READ, 200),
            ("PUT", "/api/v1/pipelines/x", READ, 403), ("DELETE", "/api/v1/pipelines/p", READ, 403),
            ("POST", "/api/v1/pipelines/p/pause", READ, 403), ("POST", "/api/v1/pipelines/p/resume", READ, 403),
            ("GET", "/healthz", None, 200), ("GET", "/api/v1/openapi.json", None, 200),
        ]:
            answer = server.request(method, path, what if method == "PUT" else None, token=token)
            assert answer.status == status, (method, path, token, answer.body)
            assert status != 401 or answer.headers["www-authenticate"] == "Bearer"
            answers.append(answer)

        # Nobody gets at the environment, nor at what is masked.
        for changes, key in [({"source__root_path": "${OTHER}"}, "source.root_path"), ({"target__token": "${OTHER}"}, "target.token"),
                             ({"source__start": "${MY_TOKEN}"}, "source.start"), ({"target__token": "(secret)"}, "target.token")]:
            answers.append(server.put("x", definition(scene.source, scene.target, pattern(scene, "x"), **changes)))
            assert answers[-1].problem(422, "PipelineFile")["errors"][0]["key"] == key
        answers.append(server.put("p", {**what, "target": {"type": "milvus", "uri": "http://elsewhere:1"}}))
        answers[-1].problem(409)
        server.post("p", "pause", {"reason": "done"}).expect(200)
        told = b"".join(a.body for a in answers) + server.request("GET", "/api/v1/pipelines").body + server.request("GET", "/metrics").body
        secrets = [b"hush-variable", b"hush-literal", b"hush-option", b"hush-other", WRITE.encode(), READ.encode()]
        assert [s for s in secrets if s in told] == []
        assert [s for s in secrets if s in server.said().encode()] == []
        assert files_others_can_read(server.data_dir) == []
        assert server.said().count("DEBUG") > 10, "it says a lot at this level"
        stored = b"".join(p.read_bytes() for p in server.data_dir.rglob("*") if p.is_file())
        assert b"hush-literal" in stored and b"hush-variable" not in stored, "a reference is kept as one"
        # Somebody who speaks no TLS, or says nothing, keeps nobody waiting.
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        started = time.monotonic()
        server.get("p")
        assert time.monotonic() - started < 2
        [s.close() for s in silent]
        server.stop()


def test_events(scene, server):
    t = scene.table("t", plain()).create(load=True)
    server.put("p", definition(scene.source, scene.target, pattern(scene, "t"))).expect(201)
    server.wait_for("p", "running")
    events = server.events("p")
    assert next(events) == ("state", {"name": "p", "state": "running", "reason": None})
    t.insert(40)
    assert any(kind == "progress" and data["rows"]["inserted"] == 40 for kind, data in events)
    server.post("p", "pause", {"reason": "enough"}).expect(200)
    told = next(data for kind, data in events if kind == "state")
    assert (told["state"], told["reason"]["message"]) == ("paused", "enough")
    others = server.events("p")
    next(others)
    server.delete("p").expect(200)
    assert list(events)[-1] == ("end", {"reason": "the pipeline was removed"})
    assert list(others)[-1][0] == "end"
    server.request("GET", "/api/v1/pipelines/p/events").problem(404)
    server.put("q", definition(scene.source, scene.target, pattern(scene, "q")), "?paused=true").expect(201)
    last = server.events("q")
    assert next(last)[1]["state"] == "paused"
    stop = threading.Timer(0.5, server.stop)
    stop.start()
    assert list(last)[-1] == ("end", {"reason": "the server stops"})
    stop.join()
