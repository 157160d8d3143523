"""Pulsar 2.11 standalone: broker and bookie in one process, metadata in RocksDB, on free ports of 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets

from .java import java
from .process import free_ports
from .pulsar_admin import PulsarAdmin
from .server import Server
from .tls import Authority

MESSAGE_BYTES = 5 << 20
HEAP = "1g"
# The standalone reaches into the JDK, which has to be told to let it.
_OPENED = ["java.base/jdk.internal.loader", "java.base/java.lang", "java.base/java.nio", "java.base/jdk.internal.misc",
           "java.management/sun.management", "java.base/sun.net", "java.base/java.io", "java.base/java.util",
           "jdk.management/com.sun.management.internal"]
_JAVA = [f"-Xmx{HEAP}", f"-XX:MaxDirectMemorySize={HEAP}", "-Dio.netty.tryReflectionSetAccessible=true",
         "-Dorg.apache.logging.log4j.level=INFO", *(f"--add-opens={p}=ALL-UNNAMED" for p in _OPENED)]


def jwt(subject: str, key: bytes) -> str:
    """A token of the kind that Pulsar's AuthenticationProviderToken takes, signed with HMAC-SHA256."""
    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")
    text = part(b'{"alg":"HS256"}') + b"." + part(json.dumps({"sub": subject}).encode())
    return (text + b"." + part(hmac.new(key, text, hashlib.sha256).digest())).decode()


class Pulsar(Server):
    """A broker, and on demand

    `auth`       clients have to show a token: Milvus gets the one of `admin`, and a pipeline that of `reader`, who may consume
    `tls`        a TLS listener beside the plain one, with a certificate of an authority of its own; "mutual" also wants
                 one from the client
    `advertised` a second plain listener whose clients are told to come to this port of 127.0.0.1: that of a proxy in front
                 of `external_port`. A client of Pulsar asks who serves a topic and goes where the answer says.
    `small_ledgers` a new ledger every so many entries, so that old ones can be trimmed away soon
    `config`     more lines of standalone.conf
    """

    kind = "pulsar"

    def __init__(self, name: str = "pulsar", *, auth: bool = False, tls: bool | str = False, advertised: int | None = None,
                 small_ledgers: int | None = None, config: dict[str, object] | None = None,
                 tenant: str = "public", namespace: str = "default"):
        super().__init__(name)
        self.tenant, self.namespace = tenant, namespace
        self.auth, self.tls, self.small_ledgers = auth, tls, small_ledgers
        self.config = dict(config or {})
        self._advertised = advertised
        names = ["plain", "web", "bookie", *(["tls", "webtls"] if tls else []), *(["external"] if advertised is not None else [])]
        self.ports = dict(zip(names, free_ports(len(names))))
        self._secret = secrets.token_bytes(32)
        if tls:
            self.authority = Authority(self.folder / "tls")
            self.certificate = self.authority.issue("pulsar")
            self.client_certificate = self.authority.issue("client")

    # --- where it is
    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['plain']}"

    @property
    def external_port(self) -> int:
        """Where a proxy has to pass its bytes to."""
        return self.ports["external"]

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['web']}/admin/v2"

    @property
    def what(self) -> str:
        return f"Pulsar at {self.address}"

    def token(self, role: str) -> str:
        return jwt(role, self._secret)

    def describe(self) -> dict:
        return {"type": self.kind, "address": self.address, "admin": self.admin_url, "tenant": self.tenant, "namespace": self.namespace,
                "ports": self.ports, "log": str(self.process.log), "pid": self.process.pid}

    def milvus_settings(self) -> dict[str, object]:
        """Lines of milvus.yaml."""
        return {"mq.type": "pulsar", "pulsar.address": "127.0.0.1", "pulsar.port": self.ports["plain"], "pulsar.webport": self.ports["web"],
                "pulsar.tenant": self.tenant, "pulsar.namespace": self.namespace, "pulsar.maxMessageSize": MESSAGE_BYTES,
                **({"pulsar.authPlugin": "token", "pulsar.authParams": f"token:{self.token('admin')}"} if self.auth else {})}

    def mq_settings(self, listener: str = "plain", role: str = "reader") -> dict[str, object]:
        """[source.mq] of a pipeline that goes to this listener: plain, external or tls."""
        port = self._advertised if listener == "external" else self.ports[listener]
        out: dict[str, object] = {"type": "pulsar", "uri": f"{'pulsar+ssl' if listener == 'tls' else 'pulsar'}://127.0.0.1:{port}",
                                  "tenant": self.tenant, "namespace": self.namespace}
        if self.auth:
            out["token"] = self.token(role)
        if listener == "tls":
            out["tls"] = {"ca": str(self.authority.cert)}
            if self.tls == "mutual":
                out["tls"] |= {"cert": str(self.client_certificate.cert), "key": str(self.client_certificate.key)}
        return out

    # --- configuration
    def _properties(self) -> dict[str, object]:
        p = self.ports
        out: dict[str, object] = {
            "clusterName": "standalone", "metadataStoreUrl": "", "zookeeperServers": "",
            "bindAddress": "127.0.0.1", "advertisedAddress": "127.0.0.1", "brokerServicePort": p["plain"], "webServicePort": p["web"],
            # The bookie reads this file too: without these it listens on every interface, on a port of its own choice.
            "listeningInterface": "lo", "allowLoopback": "true", "allowEphemeralPorts": "true",
            "managedLedgerDefaultEnsembleSize": 1, "managedLedgerDefaultWriteQuorum": 1, "managedLedgerDefaultAckQuorum": 1,
            # Nothing goes by itself; but once a test changes what is to be kept, the rest goes soon.
            "defaultRetentionTimeInMinutes": -1, "defaultRetentionSizeInMB": -1, "retentionCheckIntervalInSeconds": 1,
            "allowAutoTopicCreation": "true", "brokerDeleteInactiveTopicsEnabled": "false", "backlogQuotaCheckEnabled": "false",
            "maxMessageSize": MESSAGE_BYTES,
            "loadBalancerEnabled": "false", "systemTopicEnabled": "false", "topicLevelPoliciesEnabled": "false",
            "transactionCoordinatorEnabled": "false", "functionsWorkerEnabled": "false",
            # One machine's worth of threads and caches.
            "numIOThreads": 4, "numHttpServerThreads": 8, "managedLedgerCacheSizeMB": 64,
        }
        if self.small_ledgers:
            out |= {"managedLedgerMaxEntriesPerLedger": self.small_ledgers, "managedLedgerMinLedgerRolloverTimeMinutes": 0,
                    "managedLedgerCursorRolloverTimeInSeconds": 1}
        if self._advertised is not None:
            # Clients that come in by the second address are told of the second listener.
            told = [f"internal:pulsar://127.0.0.1:{p['plain']}", f"external:pulsar://127.0.0.1:{self._advertised}",
                    *([f"internal:pulsar+ssl://127.0.0.1:{p['tls']}"] if self.tls else [])]
            out |= {"bindAddresses": f"external:pulsar://127.0.0.1:{p['external']}", "internalListenerName": "internal",
                    "advertisedListeners": ",".join(told)}
        if self.tls:
            out |= {"brokerServicePortTls": p["tls"], "webServicePortTls": p["webtls"], "tlsEnabled": "true",
                    "tlsCertificateFilePath": self.certificate.cert, "tlsKeyFilePath": self.certificate.key,
                    "tlsTrustCertsFilePath": self.authority.cert,
                    "tlsRequireTrustedClientCertOnConnect": "true" if self.tls == "mutual" else "false"}
        if self.auth:
            plugin = "org.apache.pulsar.client.impl.auth.AuthenticationToken"
            out |= {"authenticationEnabled": "true", "authorizationEnabled": "true", "superUserRoles": "admin",
                    "authenticationProviders": "org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
                    "tokenSecretKey": "data:;base64," + base64.b64encode(self._secret).decode(),
                    "brokerClientAuthenticationPlugin": plugin, "brokerClientAuthenticationParameters": f"token:{self.token('admin')}"}
        return out | self.config

    # --- life
    def _launch(self) -> None:
        file = self.folder / "standalone.conf"
        file.write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()), "utf-8")
        self.process.spawn(java("pulsar", "org.apache.pulsar.PulsarStandaloneStarter", "--config", file, "--no-functions-worker",
                                "--no-stream-storage", "--bookkeeper-port", self.ports["bookie"], "--metadata-dir", self.folder / "metadata",
                                "--bookkeeper-dir", self.folder / "bookkeeper", options=_JAVA),
                           cwd=self.folder, env={"PULSAR_STANDALONE_USE_ZOOKEEPER": "0"})

    def _ready(self) -> bool:
        admin = self.admin
        if self.tenant not in admin.call("GET", "tenants"):
            admin.call("PUT", f"tenants/{self.tenant}", {"allowedClusters": ["standalone"]})
        if admin.namespace not in admin.call("GET", f"namespaces/{self.tenant}"):
            admin.call("PUT", f"namespaces/{admin.namespace}")
        # Says ok once a message of its own has come back to it.
        return admin.raw("GET", "brokers/health") == b"ok"

    @property
    def admin(self) -> PulsarAdmin:
        return PulsarAdmin(self.admin_url, self.tenant, self.namespace, self.token("admin") if self.auth else "")
