"""Whose fault is a difference? Each server is asked for its rows, and its log for what rows there should be.

What a server shows and its own log does not have, or the other way round, it has itself lost or failed to delete: a target cannot
be made to show what it has taken and lost, and what a source's log never said cannot be copied. What the two logs differ in is
migrans' own doing. To be asked before either server trims its log, and while nobody writes.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter

from pymilvus.grpc_gen import milvus_pb2 as pb

from .compare import Report, read_rows
from .migrans import Migrans

KEYS = 1_000_000_000
EXAMPLES = 3
EVERYWHERE = "*"  # in place of a partition, where rows go by a partition key


class Log:
    """What a server's log says of a collection: which rows there are, and what became of each key."""

    def __init__(self, server, name: str):
        database, collection = name.split(".")
        with server.client(database) as client:
            described = client.describe(collection)
            there = client.call("ShowPartitions", pb.ShowPartitionsRequest(db_name=database, collection_name=collection))
        places = {id: EVERYWHERE if _is_by_key(described) else name for id, name in zip(there.partitionIDs, there.partition_names)}
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
        alive: dict[object, Counter] = {}  # for each key, in which partitions it is, and how many times
        changes = [line for line in lines if line["collection_id"] == described.collectionID and line["kind"] in ("insert", "delete")]
        # An upsert is a delete and an insert of one time: what it writes stays.
        for line in sorted(changes, key=lambda line: (line["ts"], line["kind"] == "insert")):
            partition = line["partition_id"] or 0
            for key in line["keys"]:
                self.history.setdefault(key, []).append((line["ts"], line["kind"], line["partition"] or "*", line["channel"], line["id"]))
                of_key = alive.setdefault(key, Counter())
                if line["kind"] == "insert":
                    of_key[partition] += 1
                elif partition > 0:
                    del of_key[partition]
                else:
                    of_key.clear()
        # (partition, key), and how many times. A partition that is gone took its rows along.
        self.rows: Counter = Counter()
        for key, of_key in alive.items():
            for partition in of_key.keys() & places.keys():
                self.rows[places[partition], key] += of_key[partition]


def holes(ids: list[str]) -> list[str]:
    """Between which messages others are missing. Ids are "offset", or "ledger:entry" and for the further ones of a batch
    "ledger:entry:index"; offsets, and entries of a ledger, have no holes."""
    places = [tuple(map(int, id.split(":")))[:2] for id in ids]
    return [f"{before} and {after}" for (before, a), (after, b) in itertools.pairwise(zip(ids, places))
            if b != a and b != (*a[:-1], a[-1] + 1) and not (len(b) == 2 and b[0] > a[0] and b[1] == 0)]


def shown(server, database: str, name: str) -> tuple[set, int]:
    """The rows that a server shows of a loaded collection, as (partition, key), and how many it counts beyond one for each key."""
    rows, copies = set(), 0
    with server.client(database) as client:
        client.count(name)  # waits until everything up to now is seen
        # With a partition key, Milvus lets nobody name a partition.
        partitions = [EVERYWHERE] if _is_by_key(client.describe(name)) else client.list_partitions(name)
        for partition in partitions:
            key, columns, count = read_rows(client, name, partition.removeprefix(EVERYWHERE))
            rows |= {(partition, k) for k in columns[key].tolist()}
            copies += count - len(columns[key])
    return rows, copies


def _is_by_key(described) -> bool:
    return any(field.is_partition_key for field in described.schema.fields)


def evidence(source, target, report: Report) -> str:
    """For each collection that differs: what each server shows against its own log, and what one log says against the other."""
    out = []
    for c in report.collections:
        if not (c.missing or c.surplus or c.copies):
            continue
        database, name = c.name.split(".")
        servers = {"source": source, "target": target}
        logs = {side: Log(server, c.name) for side, server in servers.items()}

        def note(what: str, which: set) -> None:
            out.append(f"{c.name}: {what}: {len(which):,} rows")
            out.extend(_examples(c.name, which, logs))

        for side, server in servers.items():
            there, copies = shown(server, database, name)
            log = logs[side].rows
            note(f"the {side} shows what its own log does not have", there - log.keys())
            note(f"the {side} does not show what its own log has", log.keys() - there)
            unexplained = copies - (log.total() - len(log))
            out.append(f"{c.name}: the {side} counts {unexplained:,} rows more of keys that are there several times than its log has")
            out.extend(f"{c.name}: in the {side}'s log nothing was read between {hole}" for hole in logs[side].holes)
        note("what the source's log has and the target's has not", logs["source"].rows.keys() - logs["target"].rows.keys())
        note("what the target's log has and the source's has not", logs["target"].rows.keys() - logs["source"].rows.keys())
    return "\n".join(out)


def _examples(name: str, rows: set, logs: dict[str, Log]) -> list[str]:
    return [f"{name}:     {row}: " + "; ".join(f"{side}'s log {log.history.get(row[1])}" for side, log in logs.items())
            for row in sorted(rows, key=str)[:EXAMPLES]]
