"""The end-to-end benchmark: two real Milvus, migrans between them.

    python -m benches.e2e [--rows N] [--dim D] [--runs K] [--latency N] [--idle S] [--json FILE]

Prints, for each figure, the median over the runs with the least and the greatest beside it:
  backlog   a log of N rows is caught up with, from the start of the process to its end with everything committed;
            the base of its ratio is what the same target takes from a loader that sends requests encoded beforehand
  latency   one row inserted at the source until a query finds it at the target, and at the source itself
  idle      CPU of the process while nothing but ticks comes
Bytes are those of the vectors: rows x dimensions x 4.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benches.measure import cpu_seconds, settle, spread, watch
from testbed.client import EVENTUALLY, encode_rows
from testbed.migrans import Migrans
from testbed.servers import Pair
from testbed.workload import Table, plain

def loader(target, name: str, rows: int, dim: int, calls: int) -> float:
    """MB/s that the target takes from requests encoded beforehand, `calls` in flight."""
    table = Table(target, name, plain(dim), shards=2).create()
    per_call = max(1, 5_000_000 // (dim * 4))
    requests = []
    for start in range(0, min(rows, per_call * 8), per_call):
        keys = np.arange(start, start + per_call, dtype=np.int64)
        columns = [(table.key, keys)]
        for field in table.fields:
            if not field.primary:
                texts = [f"row {key}" for key in keys]
                vectors = np.random.rand(per_call, dim).astype(np.float32)
                columns.append((field, vectors if field is table.vector else texts))
        requests.append(encode_rows("default", name, "", columns, per_call))
    count = max(len(requests), rows // per_call)
    clients = [target.client() for _ in range(calls)]
    began = time.monotonic()
    with ThreadPoolExecutor(calls) as pool:
        list(pool.map(lambda i: clients[i % calls].call("Insert", requests[i % len(requests)]), range(count)))
    elapsed = time.monotonic() - began
    table.drop()
    return count * per_call * dim * 4 / elapsed / 1e6


def visible_after(client, name: str, field: str, key: int, since: float) -> float:
    while time.monotonic() - since < 60:
        if len(client.query(name, f"{field} == {key}", [field], consistency=EVENTUALLY).get(field, [])):
            return time.monotonic() - since
        time.sleep(0.005)
    raise TimeoutError(f"row {key} is not visible after 60 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--latency", type=int, default=40, metavar="ROWS")
    parser.add_argument("--idle", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict = {"rows": options.rows, "dim": options.dim, "runs": options.runs}

    with Pair.start() as pair:
        source, target = pair.source, pair.target
        megabytes = options.rows * options.dim * 4 / 1e6
        Table(source, "backlog", plain(options.dim), shards=2).create().bulk(options.rows)
        print(f"backlog of {options.rows:,} rows x {options.dim} dimensions, {megabytes:.0f} MB, 2 shards", flush=True)
        rates, ratios, cpus, peaks, bases = [], [], [], [], []
        for run in range(options.runs):
            base = 0.0
            for calls in (1, 2):
                settle(target)
                base = max(base, loader(target, f"loader_{run}_{calls}", options.rows, options.dim, calls))
            settle(target)
            with Migrans(source, target, ["default.backlog"], name=f"bench-{run}") as migrans:
                began = time.monotonic()
                migrans.run("--until", "caught-up")
                cpu, peak = watch(migrans, 300)
                rate = megabytes / (time.monotonic() - began)
                rows = migrans.report()["rows"]
                assert rows["inserted"] == options.rows, rows
            target.client().drop_collection("backlog")
            for values, value in ((rates, rate), (ratios, rate / base), (cpus, cpu), (peaks, peak), (bases, base)):
                values.append(value)
            print(f"  run {run + 1}: {rate:.0f} MB/s, loader {base:.0f} MB/s, {cpu:.1f} s of CPU, peak {peak:.0f} MB", flush=True)
        result["backlog"] = {"mb_per_s": rates, "loader_mb_per_s": bases, "ratio": ratios, "cpu_s": cpus, "peak_mb": peaks}
        print(f"backlog   {spread(rates, 'MB/s', 0)}   of the loader {spread(ratios, 'times')}")
        print(f"          CPU {spread(cpus, 's', 1)}   peak memory {spread(peaks, 'MB', 0)}", flush=True)

        table = Table(source, "latency", plain(options.dim), shards=2).create(load=True)
        with Migrans(source, target, ["default.latency"], name="bench-latency") as migrans:
            migrans.run()
            table.insert(1)
            deadline = time.monotonic() + 60
            while not (target.client().has_collection("latency") and target.client().load_state("latency") == "Loaded"):
                assert time.monotonic() < deadline, "the collection was not loaded at the target"
                time.sleep(0.2)
            here, there = source.client(), target.client()
            lags, own = [], []
            for _ in range(options.latency):
                [key] = table.insert(1)
                lags.append(visible_after(there, "latency", table.key.name, key, time.monotonic()))
                time.sleep(0.1 + 0.2 * np.random.rand())
                [key] = table.insert(1)
                own.append(visible_after(here, "latency", table.key.name, key, time.monotonic()))
            result["latency"] = {"target_s": lags, "source_s": own}
            print(f"latency   {spread(lags, 's')}   p90 {sorted(lags)[int(len(lags) * 0.9)]:.2f} s")
            print(f"          at the source itself {spread(own, 's')}", flush=True)

            time.sleep(3)
            before, began = cpu_seconds(migrans.process.pid), time.monotonic()
            time.sleep(options.idle)
            idle = (cpu_seconds(migrans.process.pid) - before) / (time.monotonic() - began) * 100
            result["idle"] = {"percent_of_a_core": idle}
            print(f"idle      {idle:.1f} % of a core over {options.idle:.0f} s", flush=True)
            migrans.stop()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
