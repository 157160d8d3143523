"""Reading each queue from a real source: how fast, in how much memory, at what cost when nothing happens.

    python -m benches.queues [--mq rocksmq,kafka,pulsar] [--megabytes N] [--runs K] [--idle S] [--memory MiB] [--json FILE]

A Milvus writes a backlog of N megabytes of vectors into its queue: 4 collections of 2 shards, 768 dimensions. Then, for
each queue:
  read     `migrans run` brings all of it into the null target, from the start of the process to its end; the base of its
           ratio is the queue's own Java client reading the same topics in the same run, and taking nothing apart (RocksMQ
           has none: there the base is `cargo bench --bench rocksmq_read`)
  memory   the same backlog goes to a real Milvus, which takes it many times slower than the queue gives it, with
           `memory` set to 256 MiB: the most memory that the process ever had resident
  idle     16 channels on which nothing but ticks comes: CPU of the process
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from pathlib import Path

from benches.measure import cpu_seconds, settle, spread, watch
from testbed.brokers import MQ
from testbed.migrans import Migrans
from testbed.server import home
from testbed.servers import Pair
from testbed.workload import Table, plain

DIM = 768
COLLECTIONS = 4
READERS = {"kafka": "KafkaReader.java", "pulsar": "PulsarReader.java"}


def channels(pair: Pair, names: list[str]) -> list[str]:
    with pair.source.client() as client:
        return sorted({c for name in names for c in client.describe(name).physical_channel_names})


def own_client(pair: Pair, mq: str, topics: list[str]) -> float:
    """MB/s of the queue's own Java client, bytes of messages."""
    settings = pair.source.mq_settings()
    address = settings["brokers"][0] if mq == "kafka" else settings["uri"]
    if mq == "pulsar":
        topics = [f"persistent://{settings.get('tenant', 'public')}/{settings.get('namespace', 'default')}/{t}" for t in topics]
    libs = home() / mq / "libs"
    run = subprocess.run(["java", "-cp", f"{libs}/*", Path(__file__).parent / READERS[mq], address, *topics],
                         capture_output=True, text=True, timeout=600, check=True, stdin=subprocess.DEVNULL)
    # Clients log to standard output too.
    [result] = re.findall(r"^(\d+) ([\d.]+)$", run.stdout, re.M)
    size, seconds = result
    return int(size) / float(seconds) / 1e6


def read(pair: Pair, run: int, env: dict[str, str] | None = None) -> tuple[float, float, float]:
    """MB/s of messages brought into the null target, CPU seconds per GB, peak MB."""
    with Migrans(pair.source, pair.target, ["default.backlog*"], name=f"read-{run}") as migrans:
        migrans.settings["target"] = {"type": "null"}
        began = time.monotonic()
        migrans.run("--until", "caught-up", env=env)
        cpu, peak = watch(migrans, 600)
        elapsed = time.monotonic() - began
        size = migrans.report()["bytes"]
        return size / elapsed / 1e6, cpu / (size / 1e9), peak


def bench(mq: str, options: argparse.Namespace) -> dict:
    result: dict = {}
    with Pair.start(mq=mq) as pair:
        rows = options.megabytes * 1_000_000 // COLLECTIONS // (DIM * 4)
        tables = [Table(pair.source, f"backlog{i}", plain(DIM), shards=2, seed=i).create() for i in range(COLLECTIONS)]
        for table in tables:
            table.bulk(rows)
        settle(pair.source)
        names = [t.name for t in tables]
        rates, ratios, bases, cpus, peaks = [], [], [], [], []
        for run in range(options.runs):
            base = own_client(pair, mq, channels(pair, names)) if mq in READERS else 0.0
            rate, cpu, peak = read(pair, run)
            rates.append(rate), cpus.append(cpu), peaks.append(peak)
            if base:
                bases.append(base), ratios.append(rate / base)
        result["read"] = {"mb_per_s": rates, "cpu_s_per_gb": cpus, "peak_mb": peaks, "own_client_mb_per_s": bases, "ratio": ratios}
        base = f"   of its own client's {spread(ratios, 'times')}, which does {spread(bases, 'MB/s', 0)}" if bases else ""
        print(f"{mq:8} read    {spread(rates, 'MB/s', 0)}{base}")
        print(f"                 CPU {spread(cpus, 's/GB')}   peak memory {spread(peaks, 'MB', 0)}", flush=True)

        if not options.no_memory:
            settings = {"delivery.memory": f"{options.memory}MiB"}
            with Migrans(pair.source, pair.target, ["default.backlog*"], name="memory", settings=settings) as migrans:
                began = time.monotonic()
                migrans.run("--until", "caught-up")
                _, peak = watch(migrans, 1200)
                rate = migrans.report()["bytes"] / (time.monotonic() - began) / 1e6
                held = migrans.report()["memory"]["peak"] / 1e6
            result["memory"] = {"peak_mb": peak, "mb_per_s": rate, "held_mb": held}
            print(f"{mq:8} memory  peak {peak:.0f} MB with a budget of {options.memory} MiB ({held:.0f} MB of it in use at most), "
                  f"{options.megabytes / 1000:.1f} GB into a Milvus at {rate:.0f} MB/s", flush=True)

        for i in range(8):
            Table(pair.source, f"quiet{i}", plain(8), shards=2, seed=i).create()
        used = channels(pair, [f"quiet{i}" for i in range(8)])
        with Migrans(pair.source, pair.target, ["default.quiet*"], name="idle") as migrans:
            migrans.run()
            time.sleep(6)
            before, began = cpu_seconds(migrans.process.pid), time.monotonic()
            time.sleep(options.idle)
            idle = (cpu_seconds(migrans.process.pid) - before) / (time.monotonic() - began) * 100
            migrans.stop()
        result["idle"] = {"percent_of_a_core": idle, "channels": len(used)}
        print(f"{mq:8} idle    {idle:.1f} % of a core with {len(used)} channels over {options.idle:.0f} s", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mq", default=",".join(MQ))
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--memory", type=int, default=256, metavar="MiB")
    parser.add_argument("--no-memory", action="store_true", help="leave the run into a real target out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"backlog of {options.megabytes} MB, {COLLECTIONS} collections of 2 shards, {DIM} dimensions; medians (least … greatest)")
    result = {mq: bench(mq, options) for mq in options.mq.split(",")}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
