"""Milvus 2.3.5 (standalone, RocksMQ, local storage) and the etcd beside it, on free ports, in a temporary folder."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from .client import Client
from .process import Process, free_ports, remove_dir, temp_dir

START_TIMEOUT = float(os.environ.get("MIGRANS_TESTBED_START_TIMEOUT", "120"))


class ServerError(Exception):
    pass


def home() -> Path:
    """Where install.sh put the server and the venv."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("MIGRANS_TESTBED") or os.path.join(cache, "migrans", "testbed"))


def _wait_until(ready, process: Process, what: str, timeout: float) -> None:
    """Polls `ready` (which may raise); explains with the end of the log why it never came."""
    deadline = time.monotonic() + timeout
    why = "it did not answer"
    while time.monotonic() < deadline:
        if not process.alive:
            raise ServerError(f"{what} ended with code {process.returncode}\n--- end of {process.log}\n{process.log_tail()}")
        try:
            if ready():
                return
        except Exception as e:  # noqa: BLE001 - whatever it is, it is not ready
            why = f"{type(e).__name__}: {e}"
        time.sleep(0.05)
    raise ServerError(f"{what} is not up after {timeout:.0f} s: {why}\n--- end of {process.log}\n{process.log_tail()}")


class Etcd:
    """One etcd of the distribution, bound to 127.0.0.1. Keys and values are bytes; calls go through its JSON gateway."""

    def __init__(self, name: str = "etcd", folder: Path | None = None):
        self.name = name
        self.folder = folder or temp_dir(name)
        self.port, self.peer_port = free_ports(2)
        self.process = Process(name, self.folder / f"{name}.log")
        self._credentials: tuple[str, str] | None = None
        self._owns_folder = folder is None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self) -> "Etcd":
        binary = shutil.which("etcd")
        if not binary:
            raise ServerError("no etcd here: run testbed/install.sh")
        peer = f"http://127.0.0.1:{self.peer_port}"
        self.process.spawn([
            binary, "--name", "default", "--data-dir", self.folder / "etcd-data", "--logger", "zap", "--log-level", "warn",
            "--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            "--max-txn-ops", "10000", "--quota-backend-bytes", str(2 << 30),
        ])
        return self

    def wait_ready(self, timeout: float = START_TIMEOUT) -> "Etcd":
        def ready():
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2) as r:
                return json.load(r).get("health") == "true"
        _wait_until(ready, self.process, f"etcd at {self.endpoint}", timeout)
        return self

    def start(self) -> "Etcd":
        return self.spawn().wait_ready()

    def stop(self) -> None:
        self.process.stop(grace=5)

    def kill9(self) -> None:
        self.process.kill()

    def restart(self, down: float = 0.0, kill: bool = False) -> None:
        self.kill9() if kill else self.stop()
        time.sleep(down)
        self.start()

    def suspend(self) -> None:
        self.process.suspend()

    def resume(self) -> None:
        self.process.resume()

    def discard(self) -> None:
        self.process.kill()
        if self._owns_folder:
            remove_dir(self.folder)

    def __enter__(self) -> "Etcd":
        return self.start()

    def __exit__(self, *_) -> None:
        self.discard()

    # --- keys
    def call(self, path: str, body: dict) -> dict:
        headers = {"Content-Type": "application/json"}
        if self._credentials and path != "auth/authenticate":
            name, password = self._credentials
            headers["Authorization"] = self.call("auth/authenticate", {"name": name, "password": password})["token"]
        request = urllib.request.Request(f"{self.endpoint}/v3/{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as r:
                return json.load(r)
        except urllib.error.HTTPError as e:
            raise ServerError(f"etcd {path}: {e.read().decode('utf-8', 'replace')}") from None

    @staticmethod
    def _range(key: str | bytes, prefix: bool) -> dict:
        key = key.encode() if isinstance(key, str) else key
        body = {"key": base64.b64encode(key).decode()}
        if prefix:
            end = key[:-1] + bytes([key[-1] + 1]) if key else b"\0"
            body["range_end"] = base64.b64encode(end).decode()
        return body

    def get(self, key: str | bytes, prefix: bool = False) -> dict[bytes, bytes]:
        answer = self.call("kv/range", self._range(key, prefix))
        return {base64.b64decode(kv["key"]): base64.b64decode(kv.get("value", "")) for kv in answer.get("kvs", [])}

    def put(self, key: str | bytes, value: str | bytes) -> None:
        value = value.encode() if isinstance(value, str) else value
        self.call("kv/put", {**self._range(key, False), "value": base64.b64encode(value).decode()})

    def delete(self, key: str | bytes, prefix: bool = False) -> int:
        return int(self.call("kv/deleterange", self._range(key, prefix)).get("deleted", 0))

    def revision(self) -> int:
        return int(self.call("kv/range", self._range("no such key", False))["header"]["revision"])

    def compact(self) -> int:
        """Throws away all history up to now; watches that start earlier get the error "compacted"."""
        revision = self.revision()
        self.call("kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def enable_auth(self, password: str = "root-password") -> tuple[str, str]:
        self.call("auth/user/add", {"name": "root", "password": password})
        self.call("auth/user/grant", {"user": "root", "role": "root"}) if self._has_root_role() else None
        self.call("auth/enable", {})
        self._credentials = ("root", password)
        return self._credentials

    def _has_root_role(self) -> bool:
        try:
            self.call("auth/role/add", {"name": "root"})
        except ServerError as e:
            if "already exists" not in str(e):
                raise
        return True


class Milvus:
    """A standalone Milvus and its own etcd. `config` overrides single settings: {"rocksmq.retentionTimeInMinutes": 1}."""

    PORTS = ("proxy", "proxyInternal", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode",
             "indexCoord", "metrics")

    def __init__(self, name: str, root_path: str = "by-dev", config: dict | None = None, auth: bool = False):
        self.name = name
        self.root_path = root_path
        self.meta_path = "meta"
        self.folder = temp_dir(name)
        self.ports = dict(zip(self.PORTS, free_ports(len(self.PORTS))))
        self.etcd = Etcd(f"{name}-etcd", folder=self.folder)
        self.auth = auth
        self.config = dict(config or {})
        self.process = Process(name, self.folder / f"{name}.log")
        self.started_in = 0.0

    # --- where things are
    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['proxy']}"

    @property
    def uri(self) -> str:
        return f"http://{self.address}"

    @property
    def token(self) -> str:
        return "root:Milvus" if self.auth else ""

    @property
    def rocksmq(self) -> Path:
        """The directory of the RocksMQ store (its bookkeeping is beside it, in ..._meta_kv)."""
        return self.folder / "rdb_data"

    def describe(self) -> dict:
        return {"uri": self.uri, "etcd": self.etcd.endpoint, "root_path": self.root_path, "meta_path": self.meta_path,
                "rocksmq": str(self.rocksmq), "storage": str(self.folder / "data"), "log": str(self.process.log),
                "pid": self.process.pid, "etcd_pid": self.etcd.process.pid}

    # --- configuration
    def _write_config(self) -> None:
        import yaml

        templates = sorted((home() / "venv").glob("lib/python3*/site-packages/milvus/data/config.yaml.template"))
        if not templates:
            raise ServerError(f"no Milvus in {home()}: run testbed/install.sh")
        # The template's placeholders are all overridden below, so a neutral value will do.
        text = re.sub(r"\{\{.*?\}\}", "0", templates[0].read_text("utf-8"))
        settings = yaml.safe_load(text)

        def put(key: str, value) -> None:
            *path, last = key.split(".")
            node = settings
            for part in path:
                if not isinstance(node.get(part), dict):
                    node[part] = {}
                node = node[part]
            node[last] = value

        p = self.ports
        for key, value in {
            "etcd.endpoints": f"127.0.0.1:{self.etcd.port}",
            "etcd.rootPath": self.root_path,
            "etcd.metaSubPath": self.meta_path,
            "etcd.use.embed": False,
            "etcd.data.dir": str(self.folder / "unused"),
            "etcd.log": {"level": "warn", "path": "stdout"},
            "localStorage.path": str(self.folder / "data"),
            "rocksmq.path": str(self.rocksmq),
            "mq.type": "rocksmq",
            "log.file.rootPath": "",
            "log.level": "info",
            "proxy.port": p["proxy"], "proxy.internalPort": p["proxyInternal"], "proxy.ip": "127.0.0.1",
            "indexCoord.bindIndexNodeMode.address": f"127.0.0.1:{p['indexCoord']}",
            **{f"{role}.port": p[role] for role in ("rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")},
            **{f"{role}.ip": "127.0.0.1" for role in ("rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")},
            "common.security.authorizationEnabled": self.auth,
            "common.security.tlsMode": 0,
            "common.chanNamePrefix.cluster": self.root_path,
            # A compiler beside us must not cost the server its session, and stopping must not take half an hour.
            "common.session.ttl": 60,
            "common.gracefulStopTimeout": 5,
            # Loads finish sooner when the coordinator looks more often.
            "queryCoord.checkChannelInterval": 100,
            "queryCoord.checkSegmentInterval": 100,
            "queryCoord.distPullInterval": 100,
            "trace.exporter": "none",
            **self.config,
        }.items():
            put(key, value)
        configs = self.folder / "configs"
        configs.mkdir(exist_ok=True)
        (configs / "milvus.yaml").write_text(yaml.safe_dump(settings), "utf-8")
        shutil.copy(templates[0].parent / "glog.conf", configs / "glog.conf")

    # --- life
    def spawn(self) -> "Milvus":
        """Starts the process without waiting for it; its etcd must be up."""
        self._write_config()
        # A server that is gone leaves sessions behind until their lease ends, a stopped one too: the next start would wait
        # for that, and then give the old query node its time to come back (44 s until rows could be read again).
        self.etcd.delete(f"{self.root_path}/{self.meta_path}/session/", prefix=True)
        for part in ("data", "run", "logs"):
            (self.folder / part).mkdir(exist_ok=True)
        self._started = time.monotonic()
        self.process.spawn([home() / "bin" / "milvus", "run", "standalone"], cwd=self.folder, env={
            "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": str(self.ports["metrics"]),
            "MILVUS_RUN_DIR": str(self.folder / "run"), "LD_LIBRARY_PATH": str(home() / "bin")})
        return self

    def wait_ready(self, timeout: float = START_TIMEOUT) -> "Milvus":
        def healthy():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/healthz", timeout=5) as r:
                return r.read().strip() == b"OK"
        _wait_until(healthy, self.process, f"Milvus {self.name} at {self.address}", timeout)

        def answers():
            # A fresh channel each time: a failed one backs off for longer than the server needs.
            with self.client(timeout=5) as client:
                client.list_collections()
                return True
        _wait_until(answers, self.process, f"the proxy of {self.name} at {self.address}", timeout)
        self.started_in = time.monotonic() - self._started
        return self

    def start(self) -> "Milvus":
        if not self.etcd.process.alive:
            self.etcd.start()
        return self.spawn().wait_ready()

    def stop(self, grace: float = 8) -> None:
        """SIGTERM, then SIGKILL: this Milvus ignores the first for long at times."""
        self.process.stop(grace)

    def kill9(self) -> None:
        self.process.kill()

    def restart(self, down: float = 0.0, kill: bool = False) -> None:
        self.kill9() if kill else self.stop()
        time.sleep(down)
        self.start()

    def suspend(self) -> None:
        self.process.suspend()

    def resume(self) -> None:
        self.process.resume()

    def discard(self) -> None:
        """Ends it the quick way and removes its folder."""
        self.process.kill()
        self.etcd.process.kill()
        remove_dir(self.folder)

    def __enter__(self) -> "Milvus":
        return self.start()

    def __exit__(self, *_) -> None:
        self.discard()

    def client(self, database: str = "default", timeout: float = 60) -> Client:
        return Client(self, database, timeout)


class Pair:
    """A source and a target, started at the same time."""

    def __init__(self, source: Milvus, target: Milvus):
        self.source = source
        self.target = target

    @classmethod
    def start(cls, source: dict | None = None, target: dict | None = None, target_auth: bool = False) -> "Pair":
        """`source` and `target` are settings for milvus.yaml."""
        pair = cls(Milvus("source", "by-dev", source), Milvus("target", "by-target", target, auth=target_auth))
        both = (pair.source, pair.target)
        try:
            for m in both:
                m.etcd.spawn()
            for m in both:
                m.etcd.wait_ready()
                m.spawn()
            for m in both:
                m.wait_ready()
        except BaseException:
            pair.discard()
            raise
        return pair

    def discard(self) -> None:
        self.source.discard()
        self.target.discard()

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_) -> None:
        self.discard()
