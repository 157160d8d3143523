"""How far a strong read at a standby is behind the primary.

    python -m benches.standby [--reads N] [--rows N] [--json FILE]

A writer inserts all the time. A row is inserted at the primary, and from its acknowledgement on a strong read for it begins at the
standby every 25 ms; the time is that until the first answer that shows it. Beside that, the same at the primary itself, and how
fast a backlog gets into the standby's log.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from benches.measure import settle, spread, watch
from testbed.client import STRONG
from testbed.migrans import Migrans
from testbed.servers import Pair
from testbed.workload import Table, Workload, plain


def shown_after(pool: ThreadPoolExecutor, client, table: Table, key: int) -> float:
    """Seconds."""
    began = time.monotonic()
    shown: list[float] = []

    def read() -> None:
        if len(client.query(table.name, f"{table.key.name} == {key}", [table.key.name], consistency=STRONG).get(table.key.name, [])):
            shown.append(time.monotonic() - began)
    reads = []
    while not shown:
        assert time.monotonic() - began < 30, f"row {key} is not visible after 30 s"
        reads.append(pool.submit(read))
        time.sleep(0.025)
    wait(reads)
    return min(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=40)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Pair.start(target={"common.ttMsgEnabled": False}) as pair:
        table, load = Table(pair.source, "beacon", plain(8)), Table(pair.source, "load", plain(128), shards=2, seed=1)
        work = Workload([load], ddl=False, batch=100)
        Workload([table, load]).create(load=True)
        with Migrans(pair.source, pair.target, ["default.*"], name="standby", settings={"target.mode": "replicate"}) as migrans:
            migrans.run()
            table.insert(1)
            with pair.target.client() as there, pair.source.client() as here:
                deadline = time.monotonic() + 60
                while not (there.has_collection(load.name) and there.load_state(load.name) == "Loaded"):
                    assert time.monotonic() < deadline, "the collection was not loaded at the standby"
                    time.sleep(0.2)
                times, own = [], []
                with work.start(rate=10), ThreadPoolExecutor(32) as pool:
                    for _ in range(options.reads):
                        [key] = table.insert(1)
                        times.append(shown_after(pool, there, table, key))
                        time.sleep(0.1 + 0.2 * np.random.rand())
                        [key] = table.insert(1)
                        own.append(shown_after(pool, here, table, key))
                        time.sleep(0.1 + 0.2 * np.random.rand())
                    work.stop()
            migrans.stop()
        for where, seconds in (("standby", times), ("primary", own)):
            print(f"strong read at the {where}  {spread(seconds, 's')}   p90 {sorted(seconds)[int(len(seconds) * 0.9)]:.2f} s", flush=True)
        big = Table(pair.source, "backlog", plain(128), shards=2, seed=2).create()
        megabytes = big.bulk(options.rows) / 1e6
        settle(pair.target)
        with Migrans(pair.source, pair.target, ["default.backlog"], name="backlog", settings={"target.mode": "replicate"}) as migrans:
            began = time.monotonic()
            migrans.run("--until", "caught-up")
            cpu, peak = watch(migrans, 300)
            rate = megabytes / (time.monotonic() - began)
        print(f"backlog of {megabytes:.0f} MB  {rate:.0f} MB/s, {cpu:.1f} s of CPU, peak {peak:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"standby_s": times, "primary_s": own, "backlog_mb_per_s": rate}, indent=1))


if __name__ == "__main__":
    main()
