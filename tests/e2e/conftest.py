"""Fixtures of the end-to-end tests: real servers, the real program, and its log when a test fails.

Most tests share one source and one target. Each has its own prefix for collection names, a pipeline that selects only
these, and its own state folder, so that they don't see each other.

A test that touches them runs once for each message queue that the source can write its log to, unless it carries
`only(queue, ..., reason=...)`. The tests of one queue run together, and its servers are gone before those of the next start.
"""

from __future__ import annotations

import itertools
import re
import signal
import sys
import time
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from testbed import MQ, Client, Kafka, Migrans, Milvus, Pair, Pulsar, Table, TcpProxy, Workload, all_types, compare, plain  # noqa: E402
from testbed.client import Refused  # noqa: E402
from testbed.evidence import evidence  # noqa: E402
from testbed.serve import Server  # noqa: E402

DEFAULT_LIMIT = 150  # seconds


# --- queues --------------------------------------------------------------------------------------------------------------
def pytest_addoption(parser):
    parser.addoption("--mq", default=",".join(MQ), help="the queues to test, with commas between them (default: %(default)s)")


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): ends the test when it takes longer")
    config.addinivalue_line("markers", "only(queue, ..., reason): not for the other queues, where it would show nothing new")
    wanted = config.getoption("--mq").split(",")
    if wrong := [q for q in wanted if q not in MQ]:
        raise pytest.UsageError(f"--mq: no such queue: {', '.join(wrong)}; there are {', '.join(MQ)}")


def pytest_generate_tests(metafunc):
    if "mq" in metafunc.fixturenames:
        metafunc.parametrize("mq", MQ, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out the queues that are not wanted, and puts the tests of each of the others together."""
    wanted = config.getoption("--mq").split(",")

    queues: dict[pytest.Item, str] = {}
    for item in items:
        only = item.get_closest_marker("only")
        assert only is None or only.kwargs.get("reason"), f"{item.name}: why only {only.args}?"
        allowed = [q for q in wanted if only is None or q in only.args]
        if hasattr(item, "callspec") and "mq" in item.callspec.params:
            allowed = [q for q in allowed if q == item.callspec.params["mq"]]
        if allowed:
            queues[item] = allowed[0]  # a test with servers of its own runs along with the first that it allows
    config.hook.pytest_deselected(items=[i for i in items if i not in queues])
    items[:] = sorted(queues, key=lambda i: wanted.index(queues[i]))


@pytest.fixture(scope="session")
def proxy(mq):
    """In front of the broker. Only what asks for it goes through it: `scene.migrans(mq=scene.by_proxy)`."""
    with TcpProxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def pair(mq, proxy):
    """The servers of one queue. The broker has every listener there is, so that no test needs another one for that."""
    queue = {"rocksmq": lambda: None,
             "kafka": lambda: Kafka(users={"reader": "kafka-secret"}, tls="mutual", advertised=proxy.port),
             "pulsar": lambda: Pulsar(tls=True, advertised=proxy.port)}[mq]()
    if queue:
        proxy.target = queue.external_port
    with Pair.start(mq=queue or mq) as pair:
        yield pair


@pytest.fixture(autouse=True)
def _limit(request):
    """Nothing may hang: neither migrans nor a server nor we."""
    marker = request.node.get_closest_marker("limit")
    seconds = marker.args[0] if marker else DEFAULT_LIMIT

    def too_long(*_):
        raise TimeoutError(f"the test takes longer than {seconds} s")
    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


_number = itertools.count(1)


class Scene:
    """What one test works with: a source, a target, a prefix for its collections, and pipelines that select them."""

    def __init__(self, source: Milvus, target: Milvus, prefix: str, database: str = "default"):
        self.source, self.target = source, target
        self.prefix, self.database = prefix, database
        self.pipelines: list[Migrans] = []

    @property
    def mq(self) -> Kafka | Pulsar | None:
        """The broker that the source writes to."""
        return self.source.mq

    @property
    def by_proxy(self) -> dict:
        """Makes a pipeline go through the proxy."""
        return {"listener": "EXTERNAL" if isinstance(self.mq, Kafka) else "external"}

    def name(self, what: str) -> str:
        return f"{self.prefix}_{what}"

    @property
    def pattern(self) -> str:
        return f"{self.database}.{self.prefix}_*"

    def table(self, what: str, fields, **options) -> Table:
        options.setdefault("seed", next(_number))
        options.setdefault("database", self.database)
        return Table(self.source, self.name(what), fields, **options)

    def migrans(self, **options) -> Migrans:
        options.setdefault("collections", [self.pattern])
        options.setdefault("name", self.prefix)
        m = Migrans(self.source, self.target, **options)
        self.pipelines.append(m)
        return m

    def compare(self, **options):
        report = compare(self.source, self.target, [self.pattern], **options)
        if not report.equal:
            print(report.text())
            print(evidence(self.source, self.target, report))
        return report.assert_equal()

    def settle(self, migrans: Migrans, **options):
        """Stops migrans if it runs, lets it catch up, and compares everything."""
        if migrans.alive:
            migrans.stop()
        migrans.run_until_caught_up()
        return self.compare(**options)

    def clean(self) -> None:
        for m in self.pipelines:
            m.discard()
        for server in (self.source, self.target):
            if not server.process.alive:
                continue
            with server.client() as all_:
                databases = all_.list_databases()
            for database in {"default", self.database} & set(databases):
                with server.client(database) as client:
                    for name in client.list_collections():
                        if name.startswith(self.prefix):
                            client.drop_collection(name)
                    if database != "default":
                        client.drop_database(database)


def mend(pair: Pair, request) -> None:
    """A test that failed half-way must not be the end of those after it: whatever was stopped runs again, and after a failure
    a server may be alive and of no use, so that all are started anew."""
    if getattr(request.node, "failed", False):
        for server in pair.servers:
            server.resume()
            server.kill9()
    pair.mend()
    if pair.mq and not takes_rows(pair.source):
        print(f"the source is of no use after {request.node.name}, and is started again: {pair.source.health()}")
        pair.source.restart(kill=True)


def takes_rows(server: Milvus) -> bool:
    """A Milvus 2.3.5 that has lost its broker for a while may say that it is well, and never take a row again."""
    table = Table(server, f"usable{next(_number)}", plain(dim=4))
    table.client.timeout = 20
    try:
        table.create().insert(1)
        table.drop()
    except (grpc.RpcError, Refused):
        return False
    return True


def prefix_of(request) -> str:
    short = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")[:40]
    return f"t{next(_number)}_{short}"


@pytest.fixture
def scene(pair, proxy, request):
    scene = Scene(pair.source, pair.target, prefix_of(request))
    request.node.scene = scene
    yield scene
    for m in scene.pipelines:
        m.process.kill()
    proxy.passing()
    mend(pair, request)
    scene.clean()


@pytest.fixture
def server(request):
    """A `migrans serve` of the test's own, which has no pipelines yet."""
    with Server() as server:
        request.node.server = server
        yield server.start()


@pytest.fixture
def own_source(scene):
    """Makes a source of the test's own, for what must not be done to the shared one: on the same broker if there is one, but
    with settings and topics of its own. Gives a scene with it."""
    made: list[Milvus] = []

    def make(**config) -> Scene:
        name = f"own{next(_number)}"
        source = Milvus(name, f"by-{name}", {k.replace("__", "."): v for k, v in config.items()}, mq=scene.mq)
        made.append(source)
        source.start()
        own = Scene(source, scene.target, scene.prefix)
        own.pipelines = scene.pipelines
        return own
    yield make
    for source in made:
        source.discard()


class Busy:
    """A pipeline that follows a source which is being written all the time, whatever happens to the servers meanwhile."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.tables = [scene.table("a", plain(), shards=2), scene.table("b", all_types("varchar"), dynamic=True)]
        self.work = Workload(self.tables, seed=21, batch=60).create(load=True)
        self.work.run(30)
        self.migrans = scene.migrans(settings={"delivery.call_deadline": "5s"})
        self.as_new = True

    def start(self, **mq) -> "Busy":
        """`mq` says how to come to the broker."""
        self.migrans.set("source.mq", self.scene.source.mq_settings(**mq)).run()
        wait_for_key(self.scene.target, self.tables[0], self.tables[0].insert(1)[0])
        self.work.start(rate=15, tolerant=True)
        time.sleep(1)
        self.as_new = False
        return self

    def settle(self, **options) -> None:
        """One more row comes through, then everything is compared."""
        self.work.stop()
        [key] = until(lambda: self.tables[0].insert(1), 90, "the source takes rows again", every=0.3)
        wait_for_key(self.scene.target, self.tables[0], key, timeout=90)
        self.migrans.assert_alive()
        report = self.scene.settle(self.migrans, **options)
        self.as_new = not any(c.copies for c in report.collections)


@pytest.fixture(scope="module")
def former_busy(pair):
    """The tests of a file take the same pipeline further, one after the other, as long as each leaves it in order."""
    left: list[Busy] = []
    yield left
    for busy in left:
        busy.scene.clean()


@pytest.fixture
def idle_busy(pair, proxy, former_busy, request):
    """Not started yet, for a test that has something to say on how."""
    busy = former_busy.pop() if former_busy else Busy(Scene(pair.source, pair.target, prefix_of(request)))
    request.node.scene = busy.scene
    with busy.work:
        yield busy
    busy.migrans.process.kill()
    proxy.passing()
    mend(pair, request)
    if busy.as_new:
        former_busy.append(busy)
    else:
        busy.scene.clean()


@pytest.fixture
def busy(idle_busy):
    return idle_busy.start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    item.failed = getattr(item, "failed", False) or report.failed
    if report.failed and call.when == "call":
        if scene := getattr(item, "scene", None):
            report.sections.append(("the servers", "\n".join(f"{s.what}: {s.health()}" for s in (scene.source, scene.target))))
        for m in getattr(getattr(item, "scene", None), "pipelines", []):
            report.sections.append((f"{m.file}", m.file.read_text() if m.file.exists() else "(never written)"))
            report.sections.append(("what migrans said", "\n".join(m.said().splitlines()[-150:])))
        if server := getattr(item, "server", None):
            report.sections.append(("what the server said", "\n".join(server.said().splitlines()[-150:])))


# --- small helpers -----------------------------------------------------------------------------------------------------
def until(ready, timeout: float, what: str, every: float = 0.05):
    """Polls until `ready` gives something true, and returns it."""
    deadline = time.monotonic() + timeout
    error = None
    while True:
        try:
            value = ready()
            if value:
                return value
        except Exception as e:  # noqa: BLE001 - a server that restarts may say anything
            error = e
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s ({error})")
        time.sleep(every)


def rows_at(server: Milvus, name: str, database: str = "default", consistency: int = 3) -> int:
    """count(*) of a loaded collection as it can be seen now; -1 as long as it can't be queried."""
    try:
        with Client(server, database, timeout=5) as client:
            return client.count(name, consistency=consistency)
    except Exception:  # noqa: BLE001
        return -1


def wait_for_rows(server: Milvus, name: str, rows: int, timeout: float = 60) -> None:
    until(lambda: rows_at(server, name) == rows, timeout, f"{rows} rows in {name} of {server.name}")


def wait_for_key(server: Milvus, table: Table, key, timeout: float = 60) -> float:
    """Seconds until the row can be queried at the target."""
    from testbed.client import EVENTUALLY, quote
    started = time.monotonic()
    with server.client(table.database, timeout=5) as client:
        def seen():
            got = client.query(table.name, f"{table.key.name} in [{quote(key)}]", [table.key.name], consistency=EVENTUALLY)
            return len(got.get(table.key.name, ())) > 0
        until(seen, timeout, f"key {key!r} of {table.name} at {server.name}", every=0.02)
    return time.monotonic() - started


def readable(server: Milvus, tables, timeout: float = 120) -> None:
    """Waits for loaded collections, which come back some time after a restart."""
    with server.client(timeout=10) as client:
        for t in tables:
            until(lambda: client.count(t.name) >= 0, timeout, f"{t.name} at {server.name} is readable", every=0.3)
