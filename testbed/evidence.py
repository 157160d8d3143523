"""Whose fault is a difference? What both servers' own logs say of the keys that are on one side only.

A target that has a key in its log as inserted, and does not show it, has taken the row and lost it. A target whose log has never had
the key was not given it, or has refused it. To be asked before either server trims its log.
"""

from __future__ import annotations

import json
from collections import Counter

from .compare import Report
from .migrans import Migrans

KEYS = 1_000_000_000


def history(server, name: str) -> dict:
    """For each key of a collection, what the log of `server` says of it, in order: (ts, "insert" or "delete")."""
    with Migrans(server, server, [name], name="evidence") as migrans:
        said = migrans.tail("--from", "earliest", "--until", "caught-up", "--json", "--keys", str(KEYS), timeout=120)
        # Not splitlines: there are keys with other ends of lines in them.
        lines = map(json.loads, said.rstrip("\n").split("\n"))
        out: dict = {}
        for line in lines:
            if line["kind"] in ("insert", "delete"):
                for key in line["keys"]:
                    out.setdefault(key, []).append((line["ts"], line["kind"]))
    return {key: sorted(of, key=lambda change: (change[0], change[1] == "insert")) for key, of in out.items()}


def evidence(source, target, report: Report) -> str:
    """For each collection with keys on one side only: how many of them are in which state by which log."""
    out = []
    for c in report.collections:
        if not c.missing and not c.surplus:
            continue
        logs = [history(server, c.name) for server in (source, target)]
        for keys, what in ((c.missing, "on the source only"), (c.surplus, "on the target only")):
            if not keys:
                continue
            states = Counter(tuple(log[k][-1][1] if k in log else "nothing" for log in logs) for k in keys)
            out += [f"{c.name}: of the keys {what}, the last thing in the source's log is {at_source}, in the target's log {at_target}: {n:,}"
                    for (at_source, at_target), n in states.most_common()]
            out += [f"{c.name}: key {k}: source's log {logs[0].get(k)}, target's log {logs[1].get(k)}" for k in keys[:3]]
    return "\n".join(out)
