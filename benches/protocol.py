"""What the protocol costs that makes a crash harmless: recording how far calls may go before they go out, intents, syncs.

    python -m benches.protocol [--megabytes N] [--runs K] [--rows N] [--json FILE]

The same backlog of a RocksMQ goes into the null target and into a real Milvus, with the protocol and without it, turn and turn
about; each pair of runs gives one ratio. Into the null target: N megabytes of vectors in 4 collections of 2 shards, 768
dimensions, where reading is all there is to do. Into the Milvus: `--rows` rows of 128 dimensions, 2 shards. Rates are from the
start of the process to its end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benches.measure import settle, spread, watch
from benches.queues import COLLECTIONS, DIM, read
from testbed.migrans import Migrans
from testbed.servers import Pair
from testbed.workload import Table, plain

OFF = {"MIGRANS_BENCH_WITHOUT_PROTOCOL": "a crash loses and doubles rows"}


def into_milvus(pair: Pair, run: int, rows: int, env: dict[str, str] | None) -> tuple[float, float]:
    """MB/s of vectors and CPU seconds."""
    settle(pair.target)
    with Migrans(pair.source, pair.target, ["default.rows"], name=f"into-{run}") as migrans:
        began = time.monotonic()
        migrans.run("--until", "caught-up", env=env)
        cpu, _ = watch(migrans, 300)
        rate = rows * 128 * 4 / (time.monotonic() - began) / 1e6
        assert migrans.report()["rows"]["inserted"] == rows
    pair.target.client().drop_collection("rows")
    return rate, cpu


def measure(name: str, runs: int, once) -> dict:
    """`once(run, env)` gives a rate and CPU seconds. Which of the two goes first changes from pair to pair."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    cpus: dict[bool, list[float]] = {True: [], False: []}
    once(0, None)  # what is read once is in memory
    for run in range(runs):
        for on in (True, False) if run % 2 else (False, True):
            rate, cpu = once(1 + 2 * run + on, None if on else OFF)
            rates[on].append(rate), cpus[on].append(cpu)
    costs = [(1 - on / off) * 100 for on, off in zip(rates[True], rates[False])]
    more = [(on / off - 1) * 100 for on, off in zip(cpus[True], cpus[False])]
    print(f"{name}   the protocol costs {spread(costs, '% of the rate', 1)} and {spread(more, '% more CPU', 1)}")
    for on in (True, False):
        print(f"{'':{len(name)}}   {'with' if on else 'without':7}  {spread(rates[on], 'MB/s', 0)}   CPU {spread(cpus[on], 's')}", flush=True)
    return {"cost_percent": costs, "with": {"mb_per_s": rates[True], "cpu_s": cpus[True]}, "without": {"mb_per_s": rates[False], "cpu_s": cpus[False]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Pair.start() as pair:
        for i in range(COLLECTIONS):
            Table(pair.source, f"backlog{i}", plain(DIM), shards=2, seed=i).create().bulk(options.megabytes * 1_000_000 // COLLECTIONS // (DIM * 4))
        Table(pair.source, "rows", plain(128), shards=2).create().bulk(options.rows)
        settle(pair.source)
        print(f"{options.runs} pairs of runs each; medians (least … greatest)")
        gigabytes = options.megabytes / 1000

        def into_nothing(run: int, env: dict[str, str] | None) -> tuple[float, float]:
            rate, cpu_per_gb, _ = read(pair, run, env)
            return rate, cpu_per_gb * gigabytes
        result = {"null": measure("into the null target", options.runs, into_nothing),
                  "milvus": measure("into a Milvus       ", options.runs, lambda run, env: into_milvus(pair, run, options.rows, env))}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
