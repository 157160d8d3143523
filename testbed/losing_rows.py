"""Shows that a Milvus 2.3.5 which is killed again and again loses rows that it has acknowledged, without anybody else being there.

    python -m testbed.losing_rows [--kills N]

Three collections get 50 rows each and are not touched again, while others are written to, dropped and made again. After each
kill -9 and restart the three are counted, with the strongest consistency. (Seen: one has 0 rows after the sixth kill.)
"""

from __future__ import annotations

import argparse
import random
import time

from .servers import Milvus
from .workload import Table, Workload, all_types, plain


def count(server: Milvus, table: Table) -> str:
    try:
        with server.client(timeout=20) as client:
            client.load(table.name, timeout=60)
            found = str(client.count(table.name))
            client.release(table.name)
            return found
    except Exception as e:  # noqa: BLE001 - it may not be back yet
        return type(e).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    rng = random.Random(1)
    server = Milvus("alone", "by-alone")
    try:
        server.start()
        still = [Table(server, f"still{i}", plain(), seed=i).create() for i in range(3)]
        for table in still:
            table.insert(50)
            table.create_index("FLAT")
        heavy = Workload([Table(server, "int64", plain(dim=64), shards=2), Table(server, "varchar", all_types("varchar"), shards=2)], seed=1)
        changing = Workload([], seed=2, batch=40, replaced=[Table(server, "again_int64", all_types(), shards=2),
                                                           Table(server, "again_varchar", plain(key="varchar"))])
        heavy.create(load=True), changing.create()
        with heavy.start(rate=20, tolerant=True), changing.start(rate=12, tolerant=True):
            for kill in range(1, options.kills + 1):
                time.sleep(rng.uniform(5, 20))
                server.kill9()
                server.start()
                time.sleep(8)
                print(f"kill {kill}: of 50 rows each there are", *(count(server, t) for t in still), flush=True)
    finally:
        server.discard()


if __name__ == "__main__":
    main()
