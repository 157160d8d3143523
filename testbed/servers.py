"""Milvus 2.3.5 (standalone, local storage) with the etcd beside it and maybe a broker, on free ports, in a temporary folder."""

from __future__ import annotations

import re
import shutil
import time
import urllib.request
from pathlib import Path

from .brokers import Broker, broker
from .client import Client
from .etcd import Etcd
from .process import free_ports
from .server import Server, ServerError, home


LAST_WORDS = re.compile(r"panic|fatal|SIG[A-Z]{3,4}|terminate|what\(\)|[Aa]ssert|Aborted")


class Milvus(Server):
    """A standalone Milvus and its own etcd. `config` overrides single settings: {"rocksmq.retentionTimeInMinutes": 1}.
    Its log goes to RocksMQ, or to a broker, which has to be up before it and is not started nor discarded here."""

    grace = 8.0  # it ignores SIGTERM for long at times

    PORTS = ("proxy", "proxyInternal", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode",
             "indexCoord", "metrics")

    def __init__(self, name: str, root_path: str = "by-dev", config: dict | None = None, auth: bool = False, mq: Broker | None = None):
        super().__init__(name)
        self.root_path = root_path
        self.meta_path = "meta"
        self.mq = mq
        self.ports = dict(zip(self.PORTS, free_ports(len(self.PORTS))))
        self.etcd = Etcd(f"{name}-etcd", folder=self.folder)
        self.auth = auth
        self.config = dict(config or {})

    # --- where things are
    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['proxy']}"

    @property
    def uri(self) -> str:
        return f"http://{self.address}"

    @property
    def what(self) -> str:
        return f"Milvus {self.name} at {self.address}"

    @property
    def token(self) -> str:
        return "root:Milvus" if self.auth else ""

    @property
    def rocksmq(self) -> Path:
        """The directory of the RocksMQ store (its bookkeeping is beside it, in ..._meta_kv)."""
        return self.folder / "rdb_data"

    def mq_settings(self, **options) -> dict[str, object]:
        """[source.mq] of a pipeline; `options` are those of the broker's own mq_settings (which listener, which user)."""
        return self.mq.mq_settings(**options) if self.mq else {"type": "rocksmq", "path": str(self.rocksmq)}

    def describe(self) -> dict:
        return {"uri": self.uri, "etcd": self.etcd.endpoint, "root_path": self.root_path, "meta_path": self.meta_path,
                "mq": self.mq_settings(), "storage": str(self.folder / "data"), "log": str(self.process.log),
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
            **(self.mq.milvus_settings() if self.mq else {"mq.type": "rocksmq"}),
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
    def _launch(self) -> None:
        """Its etcd must be up."""
        self._write_config()
        # A server that is gone leaves sessions behind until their lease ends, a stopped one too: the next start would wait
        # for that, and then give the old query node its time to come back (44 s until rows could be read again).
        self.etcd.delete(f"{self.root_path}/{self.meta_path}/session/", prefix=True)
        for part in ("data", "run", "logs"):
            (self.folder / part).mkdir(exist_ok=True)
        self.process.spawn([home() / "bin" / "milvus", "run", "standalone"], cwd=self.folder, env={
            "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": str(self.ports["metrics"]),
            "MILVUS_RUN_DIR": str(self.folder / "run"), "LD_LIBRARY_PATH": str(home() / "bin")})

    def _healthz(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/healthz", timeout=5) as r:
            return r.read().decode().strip()

    def health(self) -> str:
        """For people: what it says of itself, or why it says nothing."""
        if not self.process.alive:
            return f"ended with code {self.process.returncode}, and said last:\n" + "\n".join(self._last_words())
        try:
            return self._healthz()
        except Exception as e:  # noqa: BLE001 - that is the answer then
            return f"{type(e).__name__}: {e}"

    def _last_words(self) -> list[str]:
        """The end of its log, and what its C++ part and Go's runtime write without a level when they give up."""
        lines = self.process.log_text().splitlines()
        given_up = [line for line in lines if line and line[0] not in "[\t " and LAST_WORDS.search(line)]
        return [line[:400] for line in given_up[:10] + lines[-15:]]

    def _ready(self) -> bool:
        if self._healthz() != "OK":
            return False
        # A fresh channel each time: a failed one backs off for longer than the server needs.
        with self.client(timeout=5) as client:
            client.list_collections()
        return True

    def start(self) -> "Milvus":
        if not self.etcd.process.alive:
            self.etcd.start()
        return self.spawn().wait_ready()

    def discard(self) -> None:
        self.etcd.process.kill()
        super().discard()

    def client(self, database: str = "default", timeout: float = 60) -> Client:
        return Client(self, database, timeout)


class Pair:
    """A source and a target, started at the same time, and the broker that the source writes to, if it is not RocksMQ."""

    def __init__(self, source: Milvus, target: Milvus):
        self.source = source
        self.target = target

    @property
    def mq(self) -> Broker | None:
        return self.source.mq

    @property
    def servers(self) -> list[Server]:
        return [self.source, self.target, *([self.mq] if self.mq else [])]

    @classmethod
    def start(cls, source: dict | None = None, target: dict | None = None, target_auth: bool = False,
              mq: str | Broker = "rocksmq") -> "Pair":
        """`source` and `target` are settings for milvus.yaml; `mq` is a kind of queue, or a broker with options of its own."""
        queue = broker(mq) if isinstance(mq, str) else mq
        pair = cls(Milvus("source", "by-dev", source, mq=queue), Milvus("target", "by-target", target, auth=target_auth))
        both = (pair.source, pair.target)
        try:
            for server in (queue, pair.source.etcd, pair.target.etcd):
                if server:
                    server.spawn()
            # The target needs no broker and comes up meanwhile.
            pair.target.etcd.wait_ready()
            pair.target.spawn()
            pair.source.etcd.wait_ready()
            if queue:
                queue.wait_ready()
            pair.source.spawn()
            for m in both:
                m.wait_ready()
        except BaseException:
            pair.discard()
            raise
        return pair

    def mend(self) -> None:
        """Whatever was stopped, killed or frozen runs again."""
        for server in (self.mq, self.source.etcd, self.target.etcd, self.source, self.target):
            if server:
                server.resume()
                if not server.process.alive:
                    server.start()

    def discard(self) -> None:
        for server in self.servers:
            server.discard()

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_) -> None:
        self.discard()
