"""Every way that leads to a broker: TLS, users, tokens; and what is said when it is closed."""

import re

import pytest
from conftest import Scene, prefix_of, until

from testbed import Milvus, Pulsar, plain
from testbed.tls import Authority

kafka = pytest.mark.only("kafka", reason="these are Kafka's listeners")
pulsar = pytest.mark.only("pulsar", reason="these are Pulsar's listeners")
SOON = 30


def _copies(scene, **mq) -> None:
    t = scene.table("t", plain()).create(load=True)
    t.insert(100)
    scene.migrans(mq=mq).run_until_caught_up()
    scene.compare()


def _refused(scene, settings: dict, words: str, secrets: tuple[str, ...] = (), **mq) -> None:
    """An error in bounded time that says what is wrong, without giving anything away."""
    scene.table("t", plain()).create().insert(10)
    said = scene.migrans(mq=mq, settings=settings).fail(1, SOON)
    assert re.search(words, said, re.I), said
    assert not [s for s in secrets if s in said], said


# --- Kafka ----------------------------------------------------------------------------------------------------------------
@kafka
@pytest.mark.parametrize("listener,mechanism", [("SASL", "PLAIN"), ("SASL", "SCRAM-SHA-256"), ("SASL", "SCRAM-SHA-512"),
                                                ("SASLSSL", "SCRAM-SHA-512"), ("SSL", "")])
def test_kafka_listener(scene, listener, mechanism):
    """SSL also wants a certificate from us here."""
    _copies(scene, listener=listener, **({"mechanism": mechanism} if mechanism else {}))


@kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_kafka_wrong_password(scene, mechanism):
    _refused(scene, {"source.mq.password": "swordfish"}, r"authentic|password|credential|sasl", ("swordfish",), listener="SASL", mechanism=mechanism)


@kafka
def test_kafka_without_our_certificate(scene):
    _refused(scene, {"source.mq.tls.cert": None, "source.mq.tls.key": None}, r"certificate|tls|ssl", listener="SSL")


@kafka
def test_kafka_signed_by_somebody_else(scene):
    other = Authority(scene.mq.folder / "elsewhere", "elsewhere")
    _refused(scene, {"source.mq.tls.ca": str(other.cert)}, r"certificate|tls|ssl", listener="SASLSSL")


@kafka
def test_kafka_user_may_not_read(own_source):
    """A topic that the user may not even see looks as if it were not there, and is waited for; one that is seen is an error."""
    scene = own_source(rootCoord__dmlChannelNum=1)
    t = scene.table("t", plain()).create()
    t.insert(10)
    [channel] = t.client.describe(t.name).virtual_channel_names
    topic = channel.rpartition("_")[0]
    scene.mq.allow_only(topic, "somebody-else", "READ")
    migrans = scene.migrans(mq={"listener": "SASL"}, name="blind").run("--until", "caught-up")
    until(lambda: not migrans.alive or any("waiting" in line and topic in line for line in migrans.said().splitlines()), SOON, "a word on the topic")
    assert migrans.alive or migrans.process.returncode == 1
    assert topic in migrans.said()
    migrans.kill9()
    scene.mq.allow_only(topic, "reader", "DESCRIBE")
    said = scene.migrans(mq={"listener": "SASL"}, name="reader").fail(1, SOON)
    assert topic in said and re.search(r"denied|refuse|right|authoriz", said, re.I), said


@kafka
def test_kafka_options(scene):
    """A property of the client's own is passed through, and one that there is not is refused before anything else."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(50)
    migrans = scene.migrans(settings={"source.mq.options": {"fetch.wait.max.ms": "50", "client.rack": "here"}})
    migrans.run_until_caught_up()
    scene.compare()
    said = migrans.set("source.mq.options", {"fetch.wiat.max.ms": "50"}).fail(2, SOON)
    assert "fetch.wiat.max.ms" in said, said


# --- Pulsar ---------------------------------------------------------------------------------------------------------------
@pulsar
def test_pulsar_tls(scene):
    _copies(scene, listener="tls")


@pulsar
def test_pulsar_signed_by_somebody_else(scene):
    other = Authority(scene.mq.folder / "elsewhere", "elsewhere")
    _refused(scene, {"source.mq.tls.ca": str(other.cert)}, r"certificate|tls|ssl", listener="tls")


@pytest.fixture(scope="module")
def guarded_pulsar():
    """Wants a token, and over TLS a certificate too; other topics than usual."""
    with Pulsar("guarded-pulsar", auth=True, tls="mutual", tenant="cattle", namespace="green") as broker:
        broker.admin.grant("reader", "consume")
        with Milvus("guarded-source", "by-guarded", mq=broker) as source:
            yield source


@pytest.fixture
def guarded_scene(pair, guarded_pulsar, request):
    scene = Scene(guarded_pulsar, pair.target, prefix_of(request))
    request.node.scene = scene
    yield scene
    scene.clean()


@pulsar
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_pulsar_token(guarded_scene, listener):
    """The right to consume is all that is needed."""
    _copies(guarded_scene, listener=listener)


@pulsar
def test_pulsar_token_from_the_environment(guarded_scene):
    t = guarded_scene.table("t", plain()).create(load=True)
    t.insert(10)
    migrans = guarded_scene.migrans(settings={"source.mq.token": "${PULSAR_TOKEN}"})
    migrans.run_until_caught_up(env={"PULSAR_TOKEN": guarded_scene.mq.token("reader")})
    guarded_scene.compare()


@pulsar
@pytest.mark.parametrize("kind", ["wrong", "none", "without the right"])
def test_pulsar_token_does_not_do(guarded_scene, kind):
    token = {"wrong": guarded_scene.mq.token("reader")[:-4] + "AAAA", "none": None, "without the right": guarded_scene.mq.token("passer-by")}[kind]
    _refused(guarded_scene, {"source.mq.token": token}, r"authentic|authoriz|token|denied|right", (token,) if token else ())


@pulsar
def test_pulsar_without_our_certificate(guarded_scene):
    _refused(guarded_scene, {"source.mq.tls.cert": None, "source.mq.tls.key": None}, r"certificate|tls|ssl|connect", listener="tls")
