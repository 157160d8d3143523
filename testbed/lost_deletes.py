"""Shows that a Milvus 2.3.5 may show rows again that its own log has deleted, without anybody else being there.

    python -m testbed.lost_deletes [--mq pulsar] [--seconds 240]

Two collections are written to for a while: inserts, upserts, deletes, a flush now and then. Then what the server shows is held
against its log, before and after it is killed and started again. (Seen on Pulsar: before, two rows more than keys; after, 1,588
deleted rows of one collection and 153 of the other, and 891 keys twice.)
"""

from __future__ import annotations

import argparse
import time

from .brokers import broker
from .evidence import Log, shown
from .servers import Milvus
from .workload import Table, Workload, all_types, plain

PATIENCE = 120  # seconds for a collection to be served again


def check(when: str, server: Milvus, table: Table) -> None:
    by_log = Log(server, table.full_name).rows
    there, copies = shown(server, table.database, table.name)
    copies -= by_log.total() - len(by_log)
    print(f"{when}: {table.name}: {len(there):,} rows shown, {len(by_log):,} by the log; {len(there - by_log.keys()):,} shown that are "
          f"deleted, {len(by_log.keys() - there):,} not shown, {copies:,} shown once more", flush=True)


def served(server: Milvus, table: Table) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with server.client(timeout=10) as client:
                return client.count(table.name) >= 0
        except Exception:  # noqa: BLE001 - it may not be back yet
            time.sleep(1)
    print(f"{table.name} is not served {PATIENCE} s after the restart")
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mq", default="pulsar", choices=["rocksmq", "kafka", "pulsar"])
    parser.add_argument("--seconds", type=int, default=240)
    options = parser.parse_args()
    queue = None if options.mq == "rocksmq" else broker(options.mq)
    server = Milvus("alone", "by-alone", mq=queue)
    try:
        if queue:
            queue.start()
        server.start()
        work = Workload([Table(server, "int64", plain(dim=64), shards=2, seed=1),
                         Table(server, "varchar", all_types("varchar"), dynamic=True, shards=2, seed=2)], seed=1)
        work.create(load=True)
        with work.start(rate=40, tolerant=True):
            time.sleep(options.seconds)
            work.stop()
        for table in work.tables:
            check("before the restart", server, table)
        server.restart(kill=True)
        for table in work.tables:
            if served(server, table):
                check("after it", server, table)
    finally:
        server.discard()
        if queue:
            queue.discard()


if __name__ == "__main__":
    main()
