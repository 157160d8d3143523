"""Real servers for demo, tests and benchmarks: Milvus with its etcd, the migrans binary, a workload, a full comparison.

    with Pair.start() as pair, Migrans(pair.source, pair.target, ["default.*"]) as migrans:
        Table(pair.source, "books", plain(dim=128)).create().bulk(10_000)
        migrans.run_until_caught_up()
        compare(pair.source, pair.target, ["default.*"]).assert_equal()
"""

import os

# Refused connections are normal here (servers are killed on purpose): grpc need not print each.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from .brokers import MQ, Broker, Kafka, Pulsar, broker  # noqa: E402
from .client import Client, Refused  # noqa: E402
from .compare import compare  # noqa: E402
from .etcd import Etcd  # noqa: E402
from .migrans import Migrans, MigransError  # noqa: E402
from .server import ServerError  # noqa: E402
from .servers import Milvus, Pair  # noqa: E402
from .tcp_proxy import TcpProxy  # noqa: E402
from .workload import Table, Workload, all_types, plain  # noqa: E402

__all__ = ["MQ", "Broker", "Client", "Etcd", "Kafka", "Migrans", "MigransError", "Milvus", "Pair", "Pulsar", "Refused", "ServerError",
           "Table", "TcpProxy", "Workload", "all_types", "broker", "compare", "plain"]
