"""Whose fault is a difference? Each server is asked for its rows, and its log for what rows there should be.

What a server shows and its own log does not have, or the other way round, it has itself lost or failed to delete: a target cannot
be made to show what it has taken and lost, and what a source's log never said cannot be copied. What the two logs differ in is
migrans' own doing. To be asked before either server trims its log, and while nobody writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .compare import Report, read_rows
from .migrans import Migrans

KEYS = 1_000_000_000
EXAMPLES = 3


@dataclass
class Evidence:
    """How many rows each of them has to answer for."""

    source: int = 0   # shown against its own log
    target: int = 0
    migrans: int = 0  # in one log and not in the other
    lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n".join(self.lines)


class Log:
    """What a server's log says of a collection: which rows there are, and what became of each key."""

    def __init__(self, server, name: str):
        with Migrans(server, server, [name], name="evidence") as migrans:
            said = migrans.tail("--from", "earliest", "--until", "caught-up", "--json", "--keys", str(KEYS), timeout=300)
        # Not splitlines: there are keys with other ends of lines in them.
        lines = [json.loads(line) for line in said.rstrip("\n").split("\n") if line]
        # The collection that has the name now.
        self.id = max((line["collection_id"] for line in lines if line["collection_id"]), default=None)
        self.history: dict[object, list[tuple]] = {}
        alive: dict[object, dict[int, int]] = {}  # for each key, in which partition it is, and since when
        self.partitions: dict[int, str] = {}
        changes = [line for line in lines if line["collection_id"] == self.id and line["kind"] in ("insert", "delete")]
        # An upsert is a delete and an insert of one time: what it writes stays.
        for line in sorted(changes, key=lambda line: (line["ts"], line["kind"] == "insert")):
            partition, ts = line["partition_id"] or 0, line["ts"]
            if line["kind"] == "insert":
                self.partitions[partition] = line["partition"]
            for key in line["keys"]:
                self.history.setdefault(key, []).append((ts, line["kind"], line["partition"] or "*", line["channel"], line["id"]))
                of_key = alive.setdefault(key, {})
                if line["kind"] == "insert":
                    of_key[partition] = ts
                elif partition > 0:
                    of_key.pop(partition, None)
                else:
                    of_key.clear()
        self.rows = {(self.partitions[partition], key) for key, of_key in alive.items() for partition in of_key}


def shown(server, database: str, name: str) -> tuple[set, int, list[str]]:
    """The rows that a server shows of a loaded collection, as (partition, key), how many it counts beyond one for each key, and
    the partitions. With a partition key, Milvus lets nobody name one: then all rows are in "*"."""
    rows, copies = set(), 0
    with server.client(database) as client:
        client.count(name)  # waits until everything up to now is seen
        by_key = any(f.is_partition_key for f in client.describe(name).schema.fields)
        partitions = ["*"] if by_key else client.list_partitions(name)
        for partition in partitions:
            key, columns, count = read_rows(client, name, partition.strip("*"))
            rows |= {(partition, k) for k in columns[key].tolist()}
            copies += count - len(columns[key])
    return rows, copies, partitions


def evidence(source, target, report: Report) -> Evidence:
    """For each collection that differs: what each server shows against its own log, and what one log says against the other."""
    found = Evidence()
    for c in report.collections:
        if c.equal or not (c.missing or c.surplus or c.differing):
            continue
        database, name = c.name.split(".")
        logs, rows = {}, {}

        def note(what: str, which: set) -> int:
            found.lines.append(f"{c.name}: {what}: {len(which):,} rows")
            found.lines.extend(_examples(c.name, which, logs))
            return len(which)

        servers = {"source": source, "target": target}
        for side, server in servers.items():
            logs[side] = Log(server, c.name)
        for side, server in servers.items():
            there, copies, partitions = shown(server, database, name)
            by_log = {("*", key) for _, key in logs[side].rows} if partitions == ["*"] else logs[side].rows
            # A partition that is gone took its rows along.
            rows[side] = {row for row in by_log if row[0] in partitions}
            wrong = note(f"the {side} shows what its own log does not have", there - rows[side])
            wrong += note(f"the {side} does not show what its own log has", rows[side] - there)
            found.lines.append(f"{c.name}: the {side} has {copies:,} rows more than keys")
            setattr(found, side, getattr(found, side) + wrong + copies)
        found.migrans += note("what the source's log has and the target's has not", rows["source"] - rows["target"])
        found.migrans += note("what the target's log has and the source's has not", rows["target"] - rows["source"])
    return found


def _examples(name: str, rows: set, logs: dict[str, Log]) -> list[str]:
    return [f"{name}:     {row}: " + "; ".join(f"{side}'s log {log.history.get(row[1])}" for side, log in logs.items())
            for row in sorted(rows, key=str)[:EXAMPLES]]
