"""Fixtures of the end-to-end tests: real servers, the real program, and its log when a test fails.

Most tests share one source and one target. Each has its own prefix for collection names, a pipeline that selects only
these, and its own state folder, so that they don't see each other.
"""

from __future__ import annotations

import itertools
import re
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from testbed import Client, Migrans, Milvus, Pair, Table, compare  # noqa: E402

DEFAULT_LIMIT = 150  # seconds


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): ends the test when it takes longer")


@pytest.fixture(scope="session")
def pair():
    with Pair.start() as pair:
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
        return compare(self.source, self.target, [self.pattern], **options).assert_equal()

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


def prefix_of(request) -> str:
    short = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")[:40]
    return f"t{next(_number)}_{short}"


@pytest.fixture
def scene(pair, request):
    scene = Scene(pair.source, pair.target, prefix_of(request))
    request.node.scene = scene
    yield scene
    scene.clean()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when == "call":
        for m in getattr(getattr(item, "scene", None), "pipelines", []):
            report.sections.append((f"{m.file}", m.file.read_text() if m.file.exists() else "(never written)"))
            report.sections.append(("what migrans said", "\n".join(m.said().splitlines()[-150:])))


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
