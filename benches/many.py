"""What many quiet pipelines in one process cost: one collection each, from one Milvus into another.

    python -m benches.many --pipelines 100 --mq rocksmq
"""

from __future__ import annotations

import argparse
import statistics
import time

from testbed import MQ, Pair, Table, plain
from testbed.serve import Server, definition

from .measure import cpu_seconds


def until_quiet(server: Server, pipelines: int, timeout: float) -> None:
    """Waits until all of them run and keep up."""
    deadline = time.monotonic() + timeout
    while True:
        samples = server.metrics()
        lags = [v for k, v in samples.items() if k.startswith("migrans_lag_seconds") and 'stage="durable"' in k]
        running = samples['migrans_pipelines{state="running"}']
        if running == pipelines and max(lags) < 5:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{running:.0f} of {pipelines} run, the farthest behind is {max(lags):.1f} s\n{server.process.log_tail()}")
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--mq", choices=MQ, default="rocksmq")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure")
    parser.add_argument("--rows", type=int, default=20, help="rows that each has to copy first")
    args = parser.parse_args()
    with Pair.start(mq=args.mq) as pair, Server() as server:
        tables = [Table(pair.source, f"many_{i}", plain(dim=8), seed=i).create() for i in range(args.pipelines)]
        for t in tables:
            t.insert(args.rows)
        server.start()
        empty = server.process.resident_bytes() / 1e6
        began = time.monotonic()
        for i in range(args.pipelines):
            server.put(f"p{i}", definition(pair.source, pair.target, [f"default.many_{i}"])).expect(201)
        until_quiet(server, args.pipelines, 600)
        started = time.monotonic() - began
        time.sleep(10)
        cpu, lags = cpu_seconds(server.process.pid), []
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            time.sleep(min(10, args.seconds))  # asking costs too
            lags += [v for k, v in server.metrics().items() if k.startswith("migrans_lag_seconds") and 'stage="durable"' in k]
        cores = (cpu_seconds(server.process.pid) - cpu) / args.seconds
        print(f"{args.pipelines} pipelines of a collection each, from {args.mq}")
        print(f"until all keep up      {started:.1f} s")
        print(f"resident memory        {server.process.resident_bytes() / 1e6:.0f} MB, at the most {server.process.resident_bytes(peak=True) / 1e6:.0f} MB"
              f" (with none: {empty:.0f} MB)")
        print(f"CPU while quiet        {100 * cores:.1f} % of a core")
        print(f"durable lag            {statistics.median(lags):.1f} s, at the most {max(lags):.1f} s")
        print(f"stopping all           {server.stop():.1f} s")


if __name__ == "__main__":
    main()
