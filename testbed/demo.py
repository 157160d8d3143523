"""The demonstration: two real Milvus servers, migrans between them, and at the end every row of both sides compared.

    python -m testbed.demo [--mq rocksmq|kafka|pulsar] [--rows N] [--seconds S]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

import numpy as np

from .brokers import MQ
from .client import EVENTUALLY, JSON, META, VARCHAR, Field, Refused, quote
from .compare import compare, table
from .migrans import Migrans, MigransError
from .server import ServerError
from .servers import Pair
from .workload import Table, Workload, plain

DIM = 128
QUEUES = {"rocksmq": "RocksMQ, inside itself", "kafka": "Kafka 3.9", "pulsar": "Pulsar 2.11"}
BOLD, DIM_TEXT, GREEN, RED, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m") if sys.stdout.isatty() else [""] * 5


def headline(text: str) -> None:
    print(f"\n{BOLD}▶ {text}{PLAIN}", flush=True)


def line(text: str) -> None:
    print(f"  {text}", flush=True)


class Clock:
    def __init__(self):
        self.began = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self.began:.1f} s"


def fill(source, rows: int) -> list[Table]:
    """Several collections, a bit of everything; returns those that are still there."""
    share = rows // 20
    books = Table(source, "books", plain(DIM), shards=2, seed=1, description="Int64 keys, HNSW, loaded").create()
    books.create_index("HNSW", metric_type="COSINE", M=16, efConstruction=100)
    books.load()
    books.bulk(share * 11)
    books.upsert(min(5000, share), fresh=500)
    books.delete(min(3000, share))

    people = Table(source, "people", plain(DIM, key="varchar"), shards=2, seed=2, description="VarChar keys, deleted and back again").create(load=True)
    people.bulk(share * 3)
    people.delete(min(2000, share))
    people.reinsert(min(1000, share))

    days = Table(source, "days", plain(DIM), seed=3, description="partitions, one of them dropped").create(load=True)
    for day in ("monday", "tuesday", "wednesday", "thursday"):
        days.create_partition(day)
        days.bulk(share, partition=day)
    days.delete(min(500, share), "monday", everywhere=False)
    days.drop_partition("wednesday")
    days.bulk(share // 4, partition="tuesday")

    notes = Table(source, "notes", [*plain(DIM, auto_id=True), Field("doc", JSON)], dynamic=True, seed=4, shards=2,
                  description="autoID, JSON, dynamic fields; not loaded").create()
    notes.create_index("IVF_FLAT", metric_type="L2", nlist=64)
    for _ in range(4):
        n = share // 2
        notes.client.insert(notes.name, [(f, notes.values.column(f, n)) for f in [*notes.fields[1:], Field(META, JSON)]])

    scratch = Table(source, "scratch", plain(DIM), seed=5).create()
    scratch.bulk(share // 2)
    scratch.drop()
    return [books, people, days, notes]


class Probes:
    """One row at a time at the source, and the time until a query at the target shows it."""

    def __init__(self, target, tables: list[Table]):
        self.target, self.tables = target, tables
        self.lags: dict[str, list[float]] = {t.full_name: [] for t in tables}

    @property
    def all(self) -> list[float]:
        return sorted(x for lags in self.lags.values() for x in lags)

    def one(self, t: Table, timeout: float = 60) -> float:
        [key] = t.new_keys(1)
        key = f"probe {time.time_ns()}" if t.key.type == VARCHAR else int(key)
        columns = [(f, [key] if f.primary else ["probe"] if f.type == VARCHAR else t.values.column(f, 1)) for f in t.fields]
        columns[0] = (t.fields[0], np.array([key], np.int64) if t.key.type != VARCHAR else [key])
        t.client.insert(t.name, columns)
        began = time.monotonic()
        with self.target.client() as client:
            while time.monotonic() - began < timeout:
                try:
                    found = client.query(t.name, f"id in [{quote(key)}]", ["id"], consistency=EVENTUALLY).get("id", ())
                except Refused:  # not loaded yet
                    found = ()
                if len(found):
                    self.lags[t.full_name].append(time.monotonic() - began)
                    return self.lags[t.full_name][-1]
                time.sleep(0.01)
        raise MigransError(f"a row of {t.name} is not at the target after {timeout:.0f} s")


def percentile(lags: list[float], p: float) -> str:
    return f"{sorted(lags)[min(len(lags) - 1, int(len(lags) * p))]:.2f} s" if lags else "–"


def follow(migrans: Migrans, target, tables: list[Table], seconds: float) -> Probes:
    """Keeps writing for some seconds and shows the lag."""
    loaded = [t for t in tables if t.name != "notes"]
    probes = Probes(target, loaded)
    first = probes.one(loaded[0])
    line(f"it took up where it was: first row at the target {first:.2f} s after the source had it")
    with Workload(tables, seed=6, batch=100, ddl=False).start(rate=20) as writer:
        deadline = time.monotonic() + seconds
        i = 0
        while time.monotonic() < deadline:
            lag = probes.one(loaded[i % len(loaded)])
            i += 1
            text = f"{loaded[(i - 1) % len(loaded)].name:8} lag {lag:5.2f} s   median {percentile(probes.all, 0.5)}   {writer.steps} batches written"
            if sys.stdout.isatty():
                print(f"\r  {text}\x1b[K", end="", flush=True)
            elif i % 10 == 1:
                line(text)
            time.sleep(0.1)
            if not migrans.alive:
                raise MigransError(f"migrans ended by itself\n{migrans.log_tail()}")
        writer.stop()
    if sys.stdout.isatty():
        print()
    for t in loaded:  # the last rows of all: when they are there, so is what was written before them
        probes.one(t)
    time.sleep(1)
    line(f"{writer.steps} batches of inserts, upserts and deletes, {len(probes.all)} rows timed")
    return probes


def demo(mq: str, rows: int, seconds: float) -> bool:
    total = Clock()
    headline(f"Starting two Milvus 2.3.5, a source and a target; the source writes its log to {QUEUES[mq]}")
    with Pair.start(mq=mq) as pair:
        line(f"source {pair.source.uri} ({pair.source.started_in:.1f} s)   target {pair.target.uri} ({pair.target.started_in:.1f} s)"
             + (f"   {mq} {pair.mq.address} ({pair.mq.started_in:.1f} s)" if pair.mq else ""))

        headline(f"Loading about {rows:,} rows of {DIM} dimensions at the source")
        clock = Clock()
        tables = fill(pair.source, rows)
        line(f"{', '.join(t.name for t in tables)}, and one collection that is dropped again: {clock}")

        with Migrans(pair.source, pair.target, ["default.*"], name="demo") as migrans:
            headline("migrans run --until caught-up")
            report = migrans.run_until_caught_up(timeout=300, terminal=sys.stderr.isatty())
            speed = report.get("megabytes_per_second") or report["bytes"] / 1e6 / max(report["seconds"], 1e-3)
            line(f"{sum(report['rows'].values()):,} changes, {report['bytes'] / 1e6:.0f} MB in {report['seconds']:.1f} s: "
                 f"{BOLD}{speed:.0f} MB/s{PLAIN}")

            headline("migrans run, and the source is being written")
            migrans.run()
            probes = follow(migrans, pair.target, tables, seconds)
            line(f"SIGTERM: ended with 0 after {migrans.stop():.1f} s")

        headline("Comparing source and target, every row and every column")
        result = compare(pair.source, pair.target, ["default.*"])
        sizes = {c["name"]: c["bytes"] for c in report.get("collections", [])}
        lines = []
        for c in result.collections:
            lags = probes.lags.get(c.name, [])
            size = sizes.get(c.name, c.bytes)
            lines.append((c.name, f"{c.source_rows:,}", f"{c.target_rows:,}", f"{c.differing:,}", f"{size / 1e6:.1f}",
                          f"{size / 1e6 / report['seconds']:.1f}", *(percentile(lags, p) for p in (0.5, 0.9, 0.99))))
        lines.append(("total", f"{result.rows:,}", f"{sum(c.target_rows for c in result.collections):,}",
                      f"{sum(c.differing for c in result.collections):,}", f"{report['bytes'] / 1e6:.1f}", f"{speed:.1f}",
                      *(percentile(probes.all, p) for p in (0.5, 0.9, 0.99))))
        text = table(("collection", "source rows", "target rows", "differing", "MB", "MB/s", "lag p50", "p90", "p99"), lines, "<>>>>>>>>")
        print("\n" + "\n".join("  " + row for row in text.splitlines()) + "\n")
        for c in result.collections:
            for problem in c.problems + c.examples:
                line(f"{RED}{c.name}: {problem}{PLAIN}")
        print(f"  {GREEN}✓ equal{PLAIN}" if result.equal else f"  {RED}✗ source and target differ{PLAIN}",
              f"{DIM_TEXT}(compared in {result.seconds:.1f} s; all in all {total}){PLAIN}", flush=True)
        return result.equal


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--mq", choices=MQ, default="rocksmq", help="what the source writes its log to (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="about so many rows are loaded at the source (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="how long the writer goes on while migrans follows (default: %(default)s)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped on the way out
    try:
        return 0 if demo(args.mq, args.rows, args.seconds) else 1
    except (MigransError, ServerError) as e:
        print(f"\n{RED}the demo failed:{PLAIN} {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
