"""`migrans serve` as a process, and a client for what it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import time
from pathlib import Path
from typing import Any, Iterator

from .migrans import STOP_SECONDS, MigransError, binary, toml
from .process import Process, free_ports, remove_dir, temp_dir


class Answer:
    """Status, headers (names in lower case) and body of an answer; `json` of the body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def expect(self, status: int) -> Any:
        """The body, which is JSON, if the status is this one."""
        assert self.status == status, f"{self.status} instead of {status}: {self.body.decode('utf-8', 'replace')}"
        return self.json

    def problem(self, status: int, kind: str | None = None) -> dict:
        """The problem that the answer tells of."""
        told = self.expect(status)
        assert self.headers["content-type"] == "application/problem+json", self.headers
        assert told["status"] == status and told["detail"] and told["title"], told
        assert kind is None or told["kind"] == kind, told
        return told


class Server:
    """One server in a folder of its own. `settings` are those of its file."""

    def __init__(self, settings: dict[str, Any] | None = None, *, tls=None, token: str | None = None, level: str = "info"):
        self.folder = temp_dir("server")
        self.data_dir = self.folder / "data"
        self.file = self.folder / "server.toml"
        [self.port] = free_ports(1)
        self.process = Process("migrans serve", self.folder / "server.log")
        self.level, self.token = level, token
        self.settings = {"listen": f"127.0.0.1:{self.port}", "data_dir": str(self.data_dir), **(settings or {})}
        self.context = None
        if tls:
            authority, certificate = tls
            self.settings["tls"] = {"cert": str(certificate.cert), "key": str(certificate.key)}
            self.context = ssl.create_default_context(cafile=str(authority.cert))

    def start(self, env: dict[str, str] | None = None, timeout: float = 20) -> "Server":
        self.file.write_text(toml(self.settings), "utf-8")
        self.process.spawn([binary(), "--log-level", self.level, "serve", "--config", self.file], env=env)
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.request("GET", "/readyz", token=None).status == 200:
                    return self
            except OSError:
                pass
            if not self.process.alive or time.monotonic() > deadline:
                raise MigransError(f"the server does not start\n{self.process.log_tail()}")
            time.sleep(0.05)

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        if self.context:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method: str, path: str, body: Any = None, *, token: str | None = "", headers: dict[str, str] | None = None,
                timeout: float = 30) -> Answer:
        """`body`: bytes as they are, anything else as JSON. `token`: that of the server unless told otherwise; None: none."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        token = self.token if token == "" else token
        if token:
            headers.setdefault("Authorization", f"Bearer {token}")
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    # --- pipelines
    def put(self, name: str, definition: Any, query: str = "", **options) -> Answer:
        return self.request("PUT", f"/api/v1/pipelines/{name}{query}", definition, **options)

    def get(self, name: str) -> dict:
        return self.request("GET", f"/api/v1/pipelines/{name}").expect(200)

    def list(self) -> dict[str, dict]:
        return {p["name"]: p for p in self.request("GET", "/api/v1/pipelines").expect(200)["pipelines"]}

    def post(self, name: str, action: str, body: Any = None) -> Answer:
        return self.request("POST", f"/api/v1/pipelines/{name}/{action}", body)

    def delete(self, name: str, state: str = "keep") -> Answer:
        return self.request("DELETE", f"/api/v1/pipelines/{name}?state={state}")

    def wait_for(self, name: str, state: str, timeout: float = 30) -> dict:
        """The pipeline, once it is in this state."""
        deadline = time.monotonic() + timeout
        while (view := self.get(name))["state"] != state:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not {state} after {timeout:.0f} s but {view}\n{self.process.log_tail()}")
            time.sleep(0.05)
        return view

    def events(self, name: str, timeout: float = 30) -> Iterator[tuple[str, dict]]:
        """Kinds and data of the events of a pipeline, until the server ends them."""
        connection = self.connection(timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            connection.request("GET", f"/api/v1/pipelines/{name}/events", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200 and answer.getheader("Content-Type") == "text/event-stream", answer.status
            kind = None
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """All samples; see `samples`."""
        answer = self.request("GET", "/metrics")
        assert answer.status == 200 and answer.headers["content-type"].startswith("application/openmetrics-text"), answer.status
        return samples(answer.body)

    # --- ends
    def stop(self) -> float:
        """SIGTERM; it has to end with 0 within the promised time. Returns the seconds it took."""
        started = time.monotonic()
        self.process.signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS + 5)
        took = time.monotonic() - started
        if code != 0 or took > STOP_SECONDS:
            raise MigransError(f"the server ended with {code} after {took:.1f} s\n{self.process.log_tail()}")
        return took

    def kill9(self) -> None:
        self.process.kill()

    def said(self) -> str:
        return self.process.log_text()

    def discard(self) -> None:
        self.process.kill()
        remove_dir(self.folder)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.discard()


def samples(metrics: bytes) -> dict[str, float]:
    """The samples in an answer of /metrics, by name and labels as they are written."""
    lines = [line for line in metrics.decode().splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


def definition(source, target, collections: list[str], **changes: Any) -> dict[str, Any]:
    """What a pipeline file from `source` to `target` says; `changes` by path: delivery__memory="64MiB"."""
    made: dict[str, Any] = {
        "source": {"etcd": [source.etcd.endpoint], "root_path": source.root_path, "meta_path": source.meta_path, "mq": source.mq_settings()},
        "select": {"collections": collections},
        "target": {"type": "milvus", "uri": target.uri, **({"token": target.token} if target.token else {})},
    }
    return changed(made, changes)


def nowhere(**changes: Any) -> dict[str, Any]:
    """The same of a pipeline whose servers are not there, so that it fails at once."""
    return changed({"source": {"etcd": ["http://127.0.0.1:1"], "mq": {"type": "rocksmq", "path": "/nowhere"}},
                    "select": {"collections": ["default.*"]}, "target": {"type": "milvus", "uri": "http://127.0.0.1:1"}}, changes)


def changed(made: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *tables, key = path.split("__")
        node = made
        for table in tables:
            node = node.setdefault(table, {})
        node[key] = value
    return made


def files_others_can_read(folder: Path) -> list[Path]:
    """What anybody but the owner has any right to, below `folder`."""
    found = []
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # RocksDB's files come and go
            if path.lstat().st_mode & 0o077:
                found.append(path)
    return found
