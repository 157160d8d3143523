"""How far a strong read at a standby is behind the primary.

    python -m benches.standby [--reads N] [--rows N] [--json FILE]

A writer inserts all the time. A row is inserted at the primary, and from its acknowledgement on the standby is asked for it by
strong reads, one after the other, until it is there; the time is that until the answer of the one that shows it. Beside that: how
long a strong read takes at the primary itself, and how fast a backlog gets into the standby's log.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benches.measure import settle, spread, watch
from testbed.client import STRONG
from testbed.migrans import Migrans
from testbed.servers import Pair
from testbed.workload import Table, Workload, plain


def shown_after(client, table: Table, key: int) -> tuple[float, int]:
    """Seconds, and how many reads it took."""
    began, reads = time.monotonic(), 0
    while time.monotonic() - began < 30:
        reads += 1
        if len(client.query(table.name, f"{table.key.name} == {key}", [table.key.name], consistency=STRONG).get(table.key.name, [])):
            return time.monotonic() - began, reads
    raise TimeoutError(f"row {key} is not visible after 30 s")


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
                times, own, reads = [], [], 0
                with work.start(rate=10):
                    for _ in range(options.reads):
                        [key] = table.insert(1)
                        took, count = shown_after(there, table, key)
                        times.append(took)
                        reads += count
                        time.sleep(0.1 + 0.2 * np.random.rand())
                        [key] = table.insert(1)
                        own.append(shown_after(here, table, key)[0])
                        time.sleep(0.1 + 0.2 * np.random.rand())
                    work.stop()
            migrans.stop()
        print(f"strong read at the standby     {spread(times, 's')}   p90 {sorted(times)[int(len(times) * 0.9)]:.2f} s, "
              f"{reads} reads for {options.reads} rows")
        print(f"strong read at the primary     {spread(own, 's')}", flush=True)
        big = Table(pair.source, "backlog", plain(128), shards=2, seed=2).create()
        megabytes = big.bulk(options.rows) / 1e6
        settle(pair.target)
        with Migrans(pair.source, pair.target, ["default.backlog"], name="backlog", settings={"target.mode": "replicate"}) as migrans:
            began = time.monotonic()
            migrans.run("--until", "caught-up")
            cpu, peak = watch(migrans, 300)
            rate = megabytes / (time.monotonic() - began)
        print(f"backlog of {megabytes:.0f} MB            {rate:.0f} MB/s, {cpu:.1f} s of CPU, peak {peak:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"standby_s": times, "primary_s": own, "backlog_mb_per_s": rate}, indent=1))


if __name__ == "__main__":
    main()
