"""Real servers for demo, tests and benchmarks: Milvus with its etcd, the migrans binary, a workload, a full comparison.

    from testbed import Pair, Migrans, compare

    with Pair.start() as pair:
        ...                                      # write at pair.source
        Migrans(pair, collections=["default.*"]).run_until_caught_up()
        assert compare.pair(pair, ["default.*"]).equal
"""

import os

# pymilvus logs every refused call with a stack trace: the tests provoke many and look at the exceptions themselves.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from .migrans import Migrans, MigransError  # noqa: E402
from .servers import Etcd, Milvus, Pair  # noqa: E402

__all__ = ["Etcd", "Migrans", "MigransError", "Milvus", "Pair"]
