"""The message queues that a source may write its log to: RocksMQ inside Milvus itself, Kafka, Pulsar."""

from __future__ import annotations

from .kafka import Kafka
from .pulsar import Pulsar

Broker = Kafka | Pulsar
MQ = ("rocksmq", "kafka", "pulsar")


def broker(mq: str, **options) -> Broker | None:
    """A broker of this kind, not started; None for RocksMQ, which needs none."""
    if mq not in MQ:
        raise ValueError(f"no such message queue: {mq!r}; there are {', '.join(MQ)}")
    return {"rocksmq": lambda **_: None, "kafka": Kafka, "pulsar": Pulsar}[mq](**options)
