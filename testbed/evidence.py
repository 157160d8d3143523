"""Whose fault is a difference? Each server is asked for its rows, and its log for what rows there should be.

What a server shows and its own log does not have, or the other way round, it has itself lost or failed to delete: a target cannot
be made to show what it has taken and lost, and what a source's log never said cannot be copied. What the two logs differ in is
migrans' own doing. To be asked before either server trims its log, and while nobody writes.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

from .client import EVENTUALLY, quote
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
    holes: int = 0    # in what was read of the logs
    is_whole: bool = False  # whether holes would be seen: RocksMQ gives numbers of one row to all its topics
    open: int = 0     # differences that the source's contradictions to its own log do not explain
    lines: list[str] = field(default_factory=list)

    @property
    def clears_migrans(self) -> bool:
        """The source alone contradicts its log, and nothing else differs: the target is what the source's log says."""
        return self.is_whole and self.source > 0 and not (self.target or self.migrans or self.holes or self.open)

    def text(self) -> str:
        return "\n".join(self.lines)


class Log:
    """What a server's log says of a collection: which rows there are, and what became of each key."""

    def __init__(self, server, name: str):
        database, collection = name.split(".")
        with server.client(database) as client:
            described = client.describe(collection)
        self.id = described.collectionID
        channels = sorted(described.physical_channel_names)
        only = [argument for channel in channels for argument in ("--channel", channel)]
        with Migrans(server, server, [name], name="evidence") as migrans:
            said = migrans.tail("--from", "earliest", "--until", "caught-up", "--json", "--ticks", "--keys", str(KEYS), *only, timeout=300)
        # Not splitlines: there are keys with other ends of lines in them.
        lines = [json.loads(line) for line in said.rstrip("\n").split("\n") if line]
        # What migrans reads of a log is evidence only where nothing is missing, and the ids of brokers tell that.
        self.holes = [hole for channel in channels for hole in holes([line["id"] for line in lines if line["channel"] == channel])] \
            if server.mq else []
        self.history: dict[object, list[tuple]] = {}
        alive: dict[object, dict[int, int]] = {}  # for each key, in which partitions it is, and how many times
        self.partitions: dict[int, str] = {}
        changes = [line for line in lines if line["collection_id"] == self.id and line["kind"] in ("insert", "delete")]
        # An upsert is a delete and an insert of one time: what it writes stays.
        for line in sorted(changes, key=lambda line: (line["ts"], line["kind"] == "insert")):
            partition = line["partition_id"] or 0
            if line["kind"] == "insert":
                self.partitions[partition] = line["partition"]
            for key in line["keys"]:
                self.history.setdefault(key, []).append((line["ts"], line["kind"], line["partition"] or "*", line["channel"], line["id"]))
                of_key = alive.setdefault(key, {})
                if line["kind"] == "insert":
                    of_key[partition] = of_key.get(partition, 0) + 1
                elif partition > 0:
                    of_key.pop(partition, None)
                else:
                    of_key.clear()
        self.rows = {(self.partitions[partition], key): times for key, of_key in alive.items() for partition, times in of_key.items()}


def holes(ids: list[str]) -> list[str]:
    """Between which messages others are missing. Ids are "offset", or "ledger:entry" and for the further ones of a batch
    "ledger:entry:index"; offsets, and entries of a ledger, have no holes."""
    places = [tuple(map(int, id.split(":")))[:2] for id in ids]
    return [f"{before} and {after}" for (before, a), (after, b) in itertools.pairwise(zip(ids, places))
            if b != a and b != (*a[:-1], a[-1] + 1) and not (len(b) == 2 and b[0] > a[0] and b[1] == 0)]


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
    found = Evidence(is_whole=bool(source.mq))
    for c in report.collections:
        if c.equal:
            continue
        found.open += len(c.problems)
        if c.problems and not (c.missing or c.surplus or c.repeated or c.unequal):
            continue  # it is on one side only, or differs in attributes
        database, name = c.name.split(".")
        logs, rows = {}, {}

        def note(what: str, which: set) -> None:
            found.lines.append(f"{c.name}: {what}: {len(which):,} rows")
            found.lines.extend(_examples(c.name, which, logs))

        servers = {"source": source, "target": target}
        for side, server in servers.items():
            log = logs[side] = Log(server, c.name)
            found.holes += len(log.holes)
            found.lines += [f"{c.name}: in the {side}'s log nothing was read between {hole}" for hole in log.holes]
        kept, shows, hides, copies = {}, {}, {}, {}
        for side, server in servers.items():
            there, repeated, partitions = shown(server, database, name)
            # A partition that is gone took its rows along.
            by_log = {("*" if partitions == ["*"] else row[0], row[1]): times for row, times in logs[side].rows.items()}
            by_log = {row: times for row, times in by_log.items() if row[0] in partitions}
            kept[side], shows[side], hides[side] = set(by_log), there - by_log.keys(), by_log.keys() - there
            copies[side] = abs(repeated - (sum(by_log.values()) - len(by_log)))
            note(f"the {side} shows what its own log does not have", shows[side])
            note(f"the {side} does not show what its own log has", hides[side])
            found.lines.append(f"{c.name}: the {side} counts {copies[side]:,} rows beyond one for each key that its log does not account for")
        note("what the source's log has and the target's has not", kept["source"] - kept["target"])
        note("what the target's log has and the source's has not", kept["target"] - kept["source"])
        found.source += len(shows["source"]) + len(hides["source"]) + copies["source"]
        found.target += len(shows["target"]) + len(hides["target"]) + copies["target"]
        found.migrans += len(kept["source"] ^ kept["target"])
        found.open += len(set(c.missing) - {key for _, key in shows["source"]}) \
            + len(set(c.surplus) - {key for _, key in hides["source"]}) + _there_once(source, database, name, c.unequal)
    return found


def _there_once(server, database: str, name: str, keys: list) -> int:
    """How many of these keys are there once: of one that is there several times a query shows any."""
    with server.client(database) as client:
        key = next(f.name for f in client.describe(name).schema.fields if f.is_primary_key)
        return sum(client.count(name, f"{key} in [{quote(k)}]", consistency=EVENTUALLY) == 1 for k in keys)


def _examples(name: str, rows: set, logs: dict[str, Log]) -> list[str]:
    return [f"{name}:     {row}: " + "; ".join(f"{side}'s log {log.history.get(row[1])}" for side, log in logs.items())
            for row in sorted(rows, key=str)[:EXAMPLES]]
