"""Kafka 3.9 in KRaft mode: one node that is broker and controller, on free ports of 127.0.0.1, in a temporary folder."""

from __future__ import annotations

import base64
import subprocess
import time
import uuid

from .java import java
from .process import free_ports
from .server import Server, ServerError
from .tls import Authority

MESSAGE_BYTES = 16 << 20
HEAP = "768m"


class Kafka(Server):
    """A broker with a plain listener, which Milvus uses, and others beside it:

    `users`      {"alice": "secret"}: a SASL_PLAINTEXT listener with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; they may do
                 everything until a topic is for one of them only (`allow_only`)
    `tls`        an SSL listener with a certificate of an authority of its own, and SASL_SSL if there are users;
                 "mutual" also wants one from the client, on SSL
    `advertised` a plain listener whose clients are told to come to this port of 127.0.0.1: that of a proxy in front of
                 `external_port`. A client of Kafka goes where the broker says it is, whatever address it began with.
    `config`     more lines of server.properties
    """

    kind = "kafka"

    def __init__(self, name: str = "kafka", *, users: dict[str, str] | None = None, tls: bool | str = False,
                 advertised: int | None = None, config: dict[str, object] | None = None):
        super().__init__(name)
        self.users = dict(users or {})
        self.tls = tls
        self.config = dict(config or {})
        # Name of the listener -> its protocol.
        self._protocols = {"PLAIN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        if advertised is not None:
            self._protocols["EXTERNAL"] = "PLAINTEXT"
        if self.users:
            self._protocols["SASL"] = "SASL_PLAINTEXT"
        if tls:
            self._protocols["SSL"] = "SSL"
        if self.users and tls:
            self._protocols["SASLSSL"] = "SASL_SSL"
        self.ports = dict(zip(self._protocols, free_ports(len(self._protocols))))
        self._advertised = {**self.ports, **({"EXTERNAL": advertised} if advertised is not None else {})}
        if tls:
            self.authority = Authority(self.folder / "tls")
            self.certificate = self.authority.issue("kafka")
            self.client_certificate = self.authority.issue("client")

    # --- where it is
    @property
    def address(self) -> str:
        """Of the plain listener."""
        return f"127.0.0.1:{self.ports['PLAIN']}"

    @property
    def external_port(self) -> int:
        """Where a proxy has to pass its bytes to."""
        return self.ports["EXTERNAL"]

    @property
    def what(self) -> str:
        return f"Kafka at {self.address}"

    def describe(self) -> dict:
        return {"type": self.kind, "address": self.address, "ports": self.ports, "log": str(self.process.log), "pid": self.process.pid}

    def milvus_settings(self) -> dict[str, object]:
        """Lines of milvus.yaml."""
        return {"mq.type": "kafka", "kafka.brokerList": self.address}

    def mq_settings(self, listener: str = "PLAIN", user: str = "", mechanism: str = "SCRAM-SHA-256") -> dict[str, object]:
        """[source.mq] of a pipeline that goes to this listener: PLAIN, EXTERNAL, SASL, SSL or SASLSSL."""
        protocol = self._protocols[listener]
        out: dict[str, object] = {"type": "kafka", "brokers": [f"127.0.0.1:{self._advertised[listener]}"]}
        if protocol != "PLAINTEXT":
            out["security"] = protocol.lower()
        if protocol.startswith("SASL"):
            user = user or next(iter(self.users))
            out |= {"sasl_mechanism": mechanism, "username": user, "password": self.users[user]}
        if protocol.endswith("SSL"):
            out["tls"] = {"ca": str(self.authority.cert)}
            if self.tls == "mutual" and listener == "SSL":
                out["tls"] |= {"cert": str(self.client_certificate.cert), "key": str(self.client_certificate.key)}
        return out

    # --- configuration
    def _properties(self) -> dict[str, object]:
        clients = [n for n in self._protocols if n != "CONTROLLER"]
        out: dict[str, object] = {
            "process.roles": "broker,controller", "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.ports['CONTROLLER']}",
            "controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAIN",
            "listeners": ",".join(f"{n}://127.0.0.1:{p}" for n, p in self.ports.items()),
            "advertised.listeners": ",".join(f"{n}://127.0.0.1:{self._advertised[n]}" for n in clients),
            "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in self._protocols.items()),
            "log.dirs": self.folder / "kafka-data",
            "num.partitions": 1, "auto.create.topics.enable": "true",
            "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 1, "group.initial.rebalance.delay.ms": 0,
            "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1, "transaction.state.log.num.partitions": 1,
            # A broker that was killed may come back as soon as its former self counts as gone, by default after 9 s.
            "broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500,
            "message.max.bytes": MESSAGE_BYTES, "replica.fetch.max.bytes": MESSAGE_BYTES,
        }
        if self.users:
            out |= {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                    "super.users": "User:ANONYMOUS", "allow.everyone.if.no.acl.found": "true"}
            plain = " ".join(f'user_{n}="{p}"' for n, p in self.users.items())
            package = "org.apache.kafka.common.security"
            for listener in ("sasl", "saslssl"):
                if listener.upper() not in self._protocols:
                    continue
                out |= {f"listener.name.{listener}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                        f"listener.name.{listener}.plain.sasl.jaas.config": f"{package}.plain.PlainLoginModule required {plain};",
                        **{f"listener.name.{listener}.scram-sha-{n}.sasl.jaas.config": f"{package}.scram.ScramLoginModule required;"
                           for n in (256, 512)}}
        if self.tls:
            out |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": self.certificate.both,
                    "ssl.truststore.type": "PEM", "ssl.truststore.location": self.authority.cert,
                    "listener.name.ssl.ssl.client.auth": "required" if self.tls == "mutual" else "none"}
        return out | self.config

    def _format(self, file) -> None:
        """Makes the data folder; users of SCRAM are a part of it."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "x")
        scram = [f"--add-scram=SCRAM-SHA-{n}=[name={user},password={password}]" for user, password in self.users.items() for n in (256, 512)]
        done = subprocess.run(java("kafka", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", file, *scram, options=["-Xshare:auto"]),
                              capture_output=True, text=True, cwd=self.folder, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ServerError(f"Kafka's data folder cannot be made\n{done.stdout}{done.stderr}")

    # --- life
    def _launch(self) -> None:
        file = self.folder / "server.properties"
        file.write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()), "utf-8")
        if not (self.folder / "kafka-data").exists():
            self._format(file)
        self.process.spawn(java("kafka", "kafka.Kafka", file, options=[f"-Xmx{HEAP}"]), cwd=self.folder)

    def _ready(self) -> bool:
        metadata = self.admin().list_topics(timeout=2)
        return len(metadata.brokers) == 1

    # --- topics
    def client_config(self) -> dict:
        """For confluent_kafka, at the plain listener. Brokers go away on purpose here, so it need not report that."""
        return {"bootstrap.servers": self.address, "log_level": 0, "message.max.bytes": MESSAGE_BYTES}

    def admin(self):
        from confluent_kafka.admin import AdminClient

        return AdminClient(self.client_config())

    def topics(self) -> list[str]:
        return sorted(t for t in self.admin().list_topics(timeout=10).topics if not t.startswith("__"))

    def offsets(self, *topics: str) -> dict[str, tuple[int, int]]:
        """The first offset that is there and the next one to be written, for partition 0 of these topics or of all."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self.client_config(), "group.id": "testbed"})
        try:
            return {t: consumer.get_watermark_offsets(TopicPartition(t, 0), timeout=10) for t in topics or self.topics()}
        finally:
            consumer.close()

    def create_topic(self, *topics: str) -> None:
        from confluent_kafka.admin import NewTopic

        admin = self.admin()  # what it promises is lost when it goes
        for future in admin.create_topics([NewTopic(t, 1, 1) for t in topics]).values():
            future.result(10)

    def delete_topic(self, *topics: str) -> None:
        """Returns once they are gone."""
        admin = self.admin()
        for future in admin.delete_topics(list(topics)).values():
            future.result(10)
        deadline = time.monotonic() + 10
        while set(topics) & set(self.topics()):
            if time.monotonic() > deadline:
                raise ServerError(f"topics {topics} are still there")
            time.sleep(0.05)

    def trim(self, topic: str, before: int = -1) -> int:
        """Deletes all messages before this offset (-1: all that there are); returns the first that is left."""
        from confluent_kafka import TopicPartition

        admin = self.admin()
        [future] = admin.delete_records([TopicPartition(topic, 0, before)]).values()
        return future.result(10).low_watermark

    def messages(self, topic: str) -> list[bytes]:
        """All messages of a topic."""
        from confluent_kafka import Consumer, TopicPartition

        first, end = self.offsets(topic)[topic]
        consumer = Consumer({**self.client_config(), "group.id": "testbed", "enable.auto.commit": False})
        try:
            consumer.assign([TopicPartition(topic, 0, first)])
            found = []
            while len(found) < end - first:
                found += [m.value() for m in consumer.consume(1000, timeout=1) if not m.error()]
            return found
        finally:
            consumer.close()

    def produce(self, topic: str, value: bytes, key: bytes | None = None, headers: dict[str, bytes] | None = None, **config) -> int:
        """Writes one message, with further settings of the producer's; returns its offset."""
        from confluent_kafka import Producer

        producer, done = Producer({**self.client_config(), "message.max.bytes": MESSAGE_BYTES, **config}), []
        producer.produce(topic, value, key, partition=0, headers=headers, on_delivery=lambda error, message: done.append((error, message)))
        producer.flush(10)
        if not done or done[0][0]:
            raise ServerError(f"Kafka did not take a message for {topic}: {done and done[0][0]}")
        return done[0][1].offset()

    # --- rights
    def allow_only(self, topic: str, user: str, operation: str) -> None:
        """Of all users only this one has a right on the topic, and only this one: READ, DESCRIBE (to see it), WRITE, ..."""
        from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

        admin = self.admin()
        rule = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", AclOperation[operation],
                          AclPermissionType.ALLOW)
        for future in admin.create_acls([rule]).values():
            future.result(10)
