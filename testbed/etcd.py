"""The etcd of the distribution, bound to 127.0.0.1."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from .process import free_ports
from .server import Server, ServerError


class Etcd(Server):
    """Keys and values are bytes; calls go through its JSON gateway."""

    def __init__(self, name: str = "etcd", folder: Path | None = None):
        super().__init__(name, folder)
        self.port, self.peer_port = free_ports(2)
        self._credentials: tuple[str, str] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def what(self) -> str:
        return f"etcd at {self.endpoint}"

    def _launch(self) -> None:
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

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2) as r:
            return json.load(r).get("health") == "true"

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
