"""`POST /cdc` on `migrans serve`: requests as milvus-cdc's documentation and its test suite have them, and their answers."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import random
import ssl
import string
import time

import pytest
from conftest import rows_at, until
from pymilvus.grpc_gen.msg_pb2 import MsgPosition

from testbed import Table, TcpProxy, plain
from testbed.process import free_ports
from testbed.serve import Server
from testbed.tls import Authority

pytestmark = pytest.mark.limit(110)
one_queue = pytest.mark.only("rocksmq", reason="what is asked for and answered has nothing to do with the queue")
SECRET = "hush-hush"
CHANNEL = "by-dev-replicate-msg"


class Cdc(Server):
    """`migrans serve` with a [cdc] section, and a client like those that people have written for milvus-cdc."""

    def __init__(self, scene, **cdc):
        source = scene.source
        super().__init__({"cdc": {"replicate_channel": CHANNEL, **cdc, "source": {
            "etcd": [source.etcd.endpoint], "root_path": source.root_path, "meta_path": source.meta_path,
            "mq": source.mq_settings()}}})
        self.scene = scene

    def post_cdc(self, body) -> dict:
        answer = self.request("POST", "/cdc", body, timeout=60)
        assert SECRET.encode() not in answer.body, answer.body
        return answer.expect(200)

    def ask(self, kind: str, **data) -> dict:
        return self.post_cdc({"request_type": kind, "request_data": data})

    def good(self, kind: str, **data) -> dict | None:
        answer = self.ask(kind, **data)
        assert answer["code"] == 200 and "message" not in answer, answer
        return answer.get("data")

    def refuse(self, kind: str, **data) -> tuple[int, str]:
        answer = self.ask(kind, **data)
        assert set(answer) == {"code", "message"}, answer
        return answer["code"], answer["message"]

    def create(self, *names: str, **data) -> str:
        """A task for collections of the default database, made as milvus-cdc's own tests make them."""
        if names:
            data["collection_infos"] = [{"name": name} for name in names]
        data.setdefault("milvus_connect_param", self.by_host)
        return self.good("create", **data)["task_id"]

    @property
    def by_host(self) -> dict:
        host, port = self.scene.target.uri.removeprefix("http://").split(":")
        return {"host": host, "port": int(port), "username": "root", "password": SECRET, "enable_tls": False,
                "ignore_partition": True, "connect_timeout": 10}

    @property
    def by_uri(self) -> dict:
        return {"uri": self.scene.target.uri, "token": f"root:{SECRET}", "connect_timeout": 10}


@pytest.fixture
def serve(scene):
    """Starts servers that end with the test."""
    made: list[Cdc] = []

    def start(**cdc) -> Cdc:
        made.append(Cdc(scene, **cdc))
        return made[-1].start()
    yield start
    for server in made:
        try:
            assert server.process.alive
            for task in server.good("list")["tasks"]:
                server.good("delete", task_id=task["task_id"])  # with what it keeps in the queue
            server.stop()
            log = server.said()
            assert "panicked" not in log and SECRET not in log, log[-3000:]
        finally:
            server.discard()


def arrives(scene, table: Table, what: str = "") -> None:
    """Waits until the target has the rows that are live at the source, and compares them."""
    def rows() -> int:
        with scene.target.client(table.database) as client:
            return client.count(table.name)
    until(lambda: rows() == table.rows, 30, f"{table.rows} rows of {table.name} {what}", every=0.2)


# --- a task's life -----------------------------------------------------------------------------------------------------------
def test_a_task_from_the_documentation(scene, serve):
    """create, get, list, pause, resume, position, delete, and a restart of the server in between."""
    cdc = serve()
    first, second = scene.table("first", plain(), shards=2).create(load=True), scene.table("second", plain())
    task = cdc.create(first.name, second.name)
    assert len(task) == 32 and set(task) <= set("0123456789abcdef")
    second.create(load=True)  # after the task, as in milvus-cdc's test suite
    first.insert(100), second.insert(60)
    arrives(scene, first), arrives(scene, second)

    shown = {
        "task_id": task,
        "milvus_connect_param": {**{k: v for k, v in cdc.by_host.items() if k not in ("username", "password")},
                                 "uri": "", "dial_config": {}, "channel_num": 0},
        "kafka_connect_param": {"address": "", "topic": "", "enable_sasl": False, "sasl": {}},
        "collection_infos": [{"name": t.name, "positions": None, "use_start_position": False} for t in (first, second)],
        "db_collections": None,
        "state": "Running",
    }
    assert cdc.good("get", task_id=task) == {"task": shown}
    assert cdc.good("list") == {"tasks": [shown]}

    assert cdc.ask("pause", task_id=task) == {"code": 200}
    paused = {**shown, "state": "Paused", "reason": "manually pause through http interface"}
    assert cdc.good("get", task_id=task) == {"task": paused}
    assert cdc.refuse("pause", task_id=task) == (400, f"fail to handle the pause request, error: the task has paused, task_id: {task}")
    first.insert(50)
    cdc.stop()
    cdc.start()
    assert cdc.good("get", task_id=task) == {"task": paused}, "a paused task stays so"
    assert cdc.ask("resume", task_id=task) == {"code": 200}
    assert cdc.good("get", task_id=task) == {"task": shown}
    assert cdc.refuse("resume", task_id=task) == (400, f"fail to handle the resume request, error: the task has running, task_id: {task}")
    arrives(scene, first, "after a pause")

    cdc.kill9()
    second.insert(40)
    cdc.start()
    assert cdc.good("get", task_id=task)["task"]["state"] == "Running"
    arrives(scene, second, "after a death of the server")

    answer = cdc.good("position", task_id=task)
    assert answer["op_positions"] is None and answer["target_positions"] is None
    assert len(answer["positions"]) == 3, "one for each shard"
    for position in answer["positions"]:
        assert set(position) == {"collection_id", "channel_name", "time", "tt", "msg_id"}
        assert position["time"] == position["tt"] >> 18 and abs(position["time"] / 1000 - time.time()) < 60
        inside = MsgPosition.FromString(base64.b64decode(position["msg_id"]))
        assert position["channel_name"].startswith(f"{inside.channel_name}_{position['collection_id']}v") and inside.msgID

    assert cdc.ask("delete", task_id=task) == {"code": 200}
    assert cdc.refuse("get", task_id=task) == (400, f"fail to handle the get request, error: not found: [{task}]")
    assert cdc.post_cdc({"request_type": "list"}) == {"code": 200, "data": {"tasks": []}}
    assert cdc.good("position", task_id=task) == {"positions": None, "op_positions": None, "target_positions": None}
    assert not list((cdc.data_dir / "pipelines").iterdir())
    scene.compare()


@one_queue
def test_positions_of_one_task_begin_the_next(scene, serve):
    """Nothing is lost or done twice between the two: `msg_id` goes into `positions` as it is."""
    cdc = serve()
    t = scene.table("t", plain(), shards=2).create(load=True)
    task = cdc.create(t.name)
    t.insert(50)
    arrives(scene, t)
    cdc.good("pause", task_id=task)
    positions = cdc.good("position", task_id=task)["positions"]
    cdc.good("delete", task_id=task)
    t.insert(30)
    again = cdc.create(milvus_connect_param=cdc.by_uri, collection_infos=[
        {"name": t.name, "positions": {p["channel_name"]: p["msg_id"] for p in positions}}])
    arrives(scene, t, "inserted between two tasks")
    applied = lambda: sum(cdc.get(again)["report"]["rows"].values())  # noqa: E731
    until(applied, 10, "the report counts the rows")
    assert applied() == 30
    scene.compare()


@one_queue
def test_what_was_there_before_the_task(scene, serve):
    """Rows come from the request on, as in milvus-cdc, or all of them, with `use_start_position`."""
    cdc = serve()
    later, all_ = (scene.table(name, plain()).create(load=True) for name in ("later", "all"))
    later.insert(40), all_.insert(40)
    time.sleep(1)
    cdc.create(later.name)
    later.insert(5)
    cdc.create(collection_infos=[{"name": all_.name, "use_start_position": True}], extra_info={}, disable_auto_start=False)
    all_.insert(5)
    arrives(scene, all_)
    later.live["_default"] = later.live["_default"][-5:]
    arrives(scene, later)


@one_queue
def test_tasks_of_one_target(scene, serve):
    """A collection belongs to one task; `*` leaves out what is taken; a task that names its id can be asked for again."""
    scene.database = database = f"{scene.prefix}_db"
    with scene.source.client() as client:
        client.create_database(database)
    cdc = serve(max_task_num=2)
    single, other = (scene.table(name, plain()).create(load=True) for name in ("single", "other"))
    of = lambda *names: {"db_collections": {database: [{"name": name} for name in names]}, "milvus_connect_param": cdc.by_uri}  # noqa: E731
    first = cdc.create(**of(single.name))
    assert cdc.create(**of("*"), task_id="täsk/2") == "täsk/2"
    assert cdc.create(**of("*"), task_id="täsk/2") == "täsk/2", "it is there already"
    duplicate = "fail to handle the create request, error: the collection name is duplicate with existing task, "
    assert cdc.refuse("create", **of(single.name)) == (400, f"{duplicate}[{database}.{single.name}]")
    assert cdc.refuse("create", **of(other.name, "new")) == (400, f"{duplicate}[{database}.new {database}.{other.name}]")
    elsewhere = {**of(other.name), "milvus_connect_param": {"uri": cdc.by_uri["uri"].replace("127.0.0.1", "localhost")}}
    limit = (500, "fail to handle the create request, error: the task num has reach the limit, 2")
    assert cdc.refuse("create", **elsewhere) == limit
    single.insert(30), other.insert(30)
    arrives(scene, single), arrives(scene, other)
    assert cdc.get(first)["definition"]["select"]["collections"] == [f"{database}.{single.name}"]
    [star] = set(cdc.list()) - {first}
    assert cdc.get(star)["definition"]["select"] == {"collections": [f"{database}.*"], "exclude": [f"{database}.{single.name}"]}
    cdc.good("delete", task_id=first)
    assert cdc.create(**of(single.name)) != first, "what `*` left out may be taken again"


@one_queue
def test_a_task_that_is_not_to_start_with_the_server(scene, serve):
    cdc = serve()
    t = scene.table("t", plain()).create(load=True)
    task = cdc.create(t.name, disable_auto_start=True)
    assert cdc.good("get", task_id=task)["task"]["state"] == "Running", "it starts when it is made"
    cdc.stop()
    cdc.start()
    shown = cdc.good("get", task_id=task)["task"]
    assert (shown["state"], shown["reason"]) == ("Paused", "the task is disabled auto start")
    cdc.good("resume", task_id=task)
    t.insert(20)
    arrives(scene, t)


@one_queue
def test_a_change_of_the_source_in_the_servers_file_reaches_its_tasks(scene, serve):
    cdc = serve()
    t = scene.table("t", plain()).create(load=True)
    task = cdc.create(t.name)
    cdc.stop()
    cdc.settings["cdc"]["source"]["etcd"] = [scene.source.etcd.endpoint.replace("127.0.0.1", "localhost")]
    cdc.start()
    assert "localhost" in cdc.get(task)["definition"]["source"]["etcd"][0]
    t.insert(20)
    arrives(scene, t)


@one_queue
def test_other_names_and_roles(scene, serve):
    """`name_mapping` by collection and by database; and `enable_user_role`, which one task of a target may have."""
    cdc = serve()
    shop, archive = f"{scene.prefix}_shop", f"{scene.prefix}_archive"
    with scene.source.client() as source, scene.target.client() as target:
        source.create_database(shop)
        try:
            one = scene.table("one", plain()).create(load=True)
            two, three = (scene.table(name, plain(), database=shop).create(load=True) for name in ("two", "three"))
            other = scene.name("other")
            cdc.create(one.name, name_mapping=[{"source_db": "default", "target_db": "default", "collection_mapping": {one.name: other}}],
                       extra_info={"enable_user_role": True})
            whole = {"db_collections": {shop: [{"name": "*"}]}, "milvus_connect_param": cdc.by_uri}
            assert cdc.refuse("create", **whole, extra_info={"enable_user_role": True}) == (
                400, "fail to handle the create request, error: the enable user role param is duplicate")
            cdc.create(**whole, name_mapping=[{"source_db": shop, "target_db": archive}])
            for t in (one, two, three):
                t.insert(20)
            for database, name in (("default", other), (archive, two.name), (archive, three.name)):
                until(lambda: rows_at(scene.target, name, database) == 20, 30, f"20 rows of {name} in {database}")
            assert one.name not in target.list_collections() and shop not in target.list_databases()
        finally:
            for task in cdc.good("list")["tasks"]:
                cdc.good("delete", task_id=task["task_id"])
            for server, database in ((scene.source, shop), (scene.target, archive)):
                with server.client(database) as client:
                    for name in client.list_collections():
                        client.drop_collection(name)
                    client.drop_database(database)


@one_queue
def test_a_target_with_tls(scene, serve, tmp_path):
    """One way by the authority's certificate or by the server's own, as Milvus' documentation has it, or both ways."""
    cdc = serve()
    authority, stranger = (Authority(tmp_path / name, name) for name in ("authority", "stranger"))
    own = authority.issue("target", ("milvus.test",))
    port = int(scene.target.uri.rsplit(":", 1)[1])

    def context(verify: ssl.VerifyMode) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.cert, own.key)
        context.load_verify_locations(authority.cert)
        context.set_alpn_protocols(["h2"])
        context.verify_mode = verify
        return context

    with TcpProxy(port, context(ssl.CERT_NONE)) as one_way, TcpProxy(port, context(ssl.CERT_REQUIRED)) as both_ways:
        def by(proxy: TcpProxy, server_name: str | None = "milvus.test", **files) -> dict:
            dial = {"server_name": server_name, **{key: str(path) for key, path in files.items()}}
            return {"host": "127.0.0.1", "port": proxy.port, "enable_tls": True, "dial_config": dial, "connect_timeout": 3}
        mine = {"client_pem_path": (shown := authority.issue("client")).cert, "client_key_path": shown.key}
        good = {"authority": by(one_way, server_pem_path=authority.cert), "own": by(one_way, server_pem_path=own.cert),
                "both": by(both_ways, ca_pem_path=authority.cert, **mine)}
        other = stranger.issue("target", ("milvus.test",))
        for what, param in {
            "nothing is trusted": {**by(one_way), "dial_config": {}},
            "another authority": by(one_way, server_pem_path=stranger.cert), "another's certificate": by(one_way, server_pem_path=other.cert),
            "another name": by(one_way, "else.test", server_pem_path=authority.cert),
            "another name, with its own": by(one_way, "else.test", server_pem_path=own.cert),
            "no certificate of ours": by(both_ways, server_pem_path=authority.cert),
        }.items():
            code, said = cdc.refuse("create", milvus_connect_param=param, collection_infos=[{"name": "a"}])
            assert code == 500 and said.startswith("fail to handle the create request, error: fail to connect the milvus: "), (what, said)
        tables = {name: scene.table(name, plain()).create(load=True) for name in good}
        for name, param in good.items():
            cdc.create(tables[name].name, milvus_connect_param=param)
            tables[name].insert(20)
        for t in tables.values():
            arrives(scene, t)
        for task in cdc.good("list")["tasks"]:
            cdc.good("delete", task_id=task["task_id"])
    scene.compare()


# --- what is wrong -----------------------------------------------------------------------------------------------------------
@one_queue
def test_what_is_wrong_is_told_in_the_words_of_milvus_cdc(scene, serve):
    cdc = serve(max_name_length=20)
    dead = {"uri": f"http://127.0.0.1:{free_ports(1)[0]}", "connect_timeout": 1}
    star = [{"name": "*"}]
    good = base64.b64encode(MsgPosition(channel_name="dml_1", msgID=b"\x01" * 8).SerializeToString()).decode()
    table = [
        ({}, 400, "the downstream address is empty"),
        ({"milvus_connect_param": dead, "kafka_connect_param": {"address": "k:1"}}, 400, "don't support milvus and kafka at the same time now"),
        ({"milvus_connect_param": {"port": 1}}, 400, "the milvus host is empty"),
        ({"milvus_connect_param": {"host": "h"}}, 400, "the milvus port is less or equal zero"),
        ({"milvus_connect_param": {"uri": "u", "username": "root"}}, 400, "cannot set only one of the milvus username and password"),
        ({"milvus_connect_param": {"uri": "u", "connect_timeout": -1}}, 400, "the milvus connect timeout is less zero"),
        ({"kafka_connect_param": {"address": "k:1"}}, 400, "the kafka topic is empty"),
        ({"milvus_connect_param": dead, "buffer_config": {"period": -1}}, 400, "the cache period is less zero"),
        ({"milvus_connect_param": dead, "buffer_config": {"size": -1}}, 400, "the cache size is less zero"),
        ({"milvus_connect_param": dead}, 400, "the collection info is empty"),
        ({"milvus_connect_param": dead, "collection_infos": star, "db_collections": {"a": star}}, 400,
         "the collection info and db collection info should be only one"),
        ({"milvus_connect_param": dead, "db_collections": {"a": []}}, 400, "empty collection info"),
        ({"milvus_connect_param": dead, "collection_infos": [{"name": "*", "positions": {"a": "b"}}]}, 400,
         "the collection name is `*`, the positions should be empty"),
        ({"milvus_connect_param": dead, "collection_infos": [{"name": "a", "positions": {"a": "b"}}]}, 400,
         "the position channel name is not virtual channel, a"),
        ({"milvus_connect_param": dead, "collection_infos": [{"name": ""}]}, 400, "there is a collection name that is empty. "),
        ({"milvus_connect_param": dead, "collection_infos": [{"name": "a" * 21}]}, 400,
         f"there are some collection names whose length exceeds 20 characters, [{'a' * 21}]"),
        ({"milvus_connect_param": dead, "collection_infos": star, "rpc_channel_info": {"name": "other"}}, 400,
         "the rpc channel is invalid, the channel name should be the same as the source config"),
        ({"milvus_connect_param": cdc.by_uri, "db_collections": {"x": [{"name": "a"}]}, "name_mapping": [{"source_db": "y", "target_db": "z"}]}, 400,
         "the collection name in the name mapping is not in the collection info, checkout it"),
        ({"milvus_connect_param": cdc.by_uri, "collection_infos": [{"name": "a", "positions": {"dml_1_1v0": good, "dml_1_2v0": good}}]}, 400,
         "the channel position info should be in the same collection"),
    ]
    for data, code, message in table:
        assert cdc.refuse("create", **data) == (code, f"fail to handle the create request, error: {message}"), data
    starts = [
        ({"milvus_connect_param": dead, "collection_infos": star}, "fail to connect the milvus: "),
        ({"kafka_connect_param": {"address": "k:1", "topic": "t"}, "collection_infos": star}, "fail to connect the kafka: "),
        ({"milvus_connect_param": cdc.by_uri, "collection_infos": [{"name": "a", "positions": {"dml_1_1v0": "%"}}]}, "fail to decode the position data: "),
        ({"milvus_connect_param": cdc.by_uri, "collection_infos": star, "rpc_channel_info": {"position": "%"}}, "fail to decode the rpc position data: "),
    ]
    for data, message in starts:
        code, said = cdc.refuse("create", **data)
        assert code == 500 and said.startswith(f"fail to handle the create request, error: {message}"), said
    for kind in ("delete", "pause", "resume"):
        assert cdc.refuse(kind, task_id="none") == (400, f"fail to handle the {kind} request, error: not found the task, task_id: none")
    assert cdc.ask("delete", task_id="none", ignore_not_found=True) == {"code": 200}
    assert cdc.refuse("get") == (400, "fail to handle the get request, error: task_id is empty")
    assert cdc.refuse("get", task_id="none") == (400, "fail to handle the get request, error: not found: [none]")
    code, said = cdc.refuse("dance")
    assert code == 400 and said.startswith("invalid 'request_type' param, can be set [")
    assert cdc.refuse("create", milvus_connect_param={"port": "19530"}) == (
        500, "fail to decode the create request, error: 1 error(s) decoding:\n\n* 'milvus_connect_param.port' expected type 'int', "
             "got unconvertible type 'string', value: '19530'")
    assert cdc.post_cdc(b"{")["code"] == 500
    answer = cdc.request("GET", "/cdc")
    assert (answer.status, answer.body) == (200, b'{"code":405,"message":"only support the POST method"}\n')
    assert cdc.good("list") == {"tasks": []}, "nothing is left of what was refused"

    debug = lambda: cdc.said().count(" DEBUG ")  # noqa: E731
    assert not debug()
    for operation, params, state in [
            ("set_log_level", {}, "log_level is required"),
            ("set_log_level", {"log_level": "loud"}, 'parse log level failed: unrecognized level: "loud"'),
            ("dance", {}, "unsupported operation: dance"),
            ("set_log_level", {"log_level": "debug"}, "set log level to debug")]:
        assert cdc.good("maintenance", operation=operation, params=params) == {"State": state}
    until(debug, 5, "a line of the new level in the log")
    assert cdc.good("maintenance", operation="set_log_level", params={"log_level": "info"}) == {"State": "set log level to info"}
    before = debug()
    cdc.good("list")
    time.sleep(0.2)
    assert debug() == before


@one_queue
def test_a_task_that_can_not_start_is_none(scene, serve):
    """The target has a collection of that name with another schema."""
    cdc = serve()
    t = scene.table("t", plain(dim=16)).create(load=True)
    with scene.target.client() as client:
        client.create_collection(t.name, plain(dim=32))
    code, said = cdc.refuse("create", collection_infos=[{"name": t.name}], milvus_connect_param=cdc.by_uri)
    assert code == 400 and t.name in said, said
    assert cdc.good("list") == {"tasks": []} and not list((cdc.data_dir / "pipelines").iterdir())


# --- nonsense ----------------------------------------------------------------------------------------------------------------
BODIES = 10_000


def _nonsense(rng: random.Random, target: str) -> bytes:
    """A request with something wrong in it: values of other kinds, keys that come and go, bytes that are none."""
    odd = [None, True, False, 0, -1, 1.5, 1e300, 2 ** 70, "", "*", "a", "\u0000", "x" * 5000, "${HOME}", [], {}, [[]], [None], {"": None},
           {"name": "*"}, [{"name": "a"}, {"name": "a"}], "http://127.0.0.1:1", "a.b", "a_1v0", {"a_1v0": "!"}, [{"a": [{"b": [1]}]}]]
    request = {"request_type": rng.choice(["create"] * 6 + ["delete", "pause", "resume", "get", "position", "list", "maintenance", "x"]),
               "request_data": {
                   "milvus_connect_param": {"uri": target, "token": SECRET, "connect_timeout": 1, "dial_config": {"server_name": "x"}},
                   "collection_infos": [{"name": "a", "positions": {"dml_1_1v0": "AAAA"}, "use_start_position": True}],
                   "db_collections": {"foo": [{"name": "b"}]}, "name_mapping": [{"source_db": "a", "target_db": "b", "collection_mapping": {"a": "b"}}],
                   "rpc_channel_info": {"name": CHANNEL, "position": ""}, "extra_info": {"enable_user_role": True}, "buffer_config": {"period": 1, "size": 1},
                   "kafka_connect_param": {"address": "", "topic": "", "sasl": {"username": "u"}}, "task_id": "t", "operation": "o", "params": {"log_level": 1}}}

    def nodes(value, found):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(items):
            found.append((value, key))
            nodes(inner, found)
        return found
    for _ in range(rng.randint(0, 6)):
        places = nodes(request, [])
        if not places:
            break
        holder, key = rng.choice(places)
        what = rng.random()
        if what < 0.45:
            holder[key] = copy.deepcopy(rng.choice(odd))
        elif what < 0.8 and isinstance(holder, dict):
            del holder[key]
        elif isinstance(holder, dict) and isinstance(key, str):
            holder[rng.choice([key.upper(), key + "x", "", "name", "task_id"])] = copy.deepcopy(rng.choice(odd))
    body = json.dumps(request).encode()
    what = rng.random()
    if what < 0.1:
        return body[:rng.randint(0, len(body))]
    if what < 0.2:
        body = bytearray(body)
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.choice([0, 0x22, 0x5B, 0x7B, 0x7D, 0x5C, 0xFF, rng.randrange(256)])
        return bytes(body)
    if what < 0.23:
        return rng.randbytes(rng.randint(0, 200))
    if what < 0.25:
        return "".join(rng.choices(string.printable, k=50)).encode()
    if what < 0.26:
        return b"[" * rng.randint(1, 5000) + b"]" * rng.randint(0, 5000)
    return body


@one_queue
@pytest.mark.limit(300)  # 10 s, but where many others want the processor too
def test_nonsense_is_answered_and_leaves_nothing_behind(scene, serve):
    cdc = serve()
    rng = random.Random(20_261_123)
    target = f"http://127.0.0.1:{free_ports(1)[0]}"  # nobody is there: what happens to be a whole request fails too
    connection = http.client.HTTPConnection("127.0.0.1", cdc.port, timeout=30)
    codes: dict[int, int] = {}
    for number in range(BODIES):
        body = _nonsense(rng, target)
        connection.request("POST", "/cdc", body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200 and answer["code"] in (200, 400, 500), (number, body, answer)
        assert (answer["code"] == 200) or answer["message"], (number, body, answer)
        codes[answer["code"]] = codes.get(answer["code"], 0) + 1
    connection.close()
    assert min(codes.values()) > 100, codes
    assert cdc.good("list") == {"tasks": []}
    assert cdc.list() == {} and not list((cdc.data_dir / "pipelines").glob("*"))
    big = b'{"request_type":"list","request_data":{"x":"' + b"x" * (1 << 20) + b'"}}'
    answer = cdc.post_cdc(big)
    assert answer["code"] == 500 and answer["message"].startswith("fail to read the request body, error: "), answer
