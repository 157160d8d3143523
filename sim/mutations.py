"""Breaks the program on purpose, one rule at a time, and lets the simulation find out.

    python sim/mutations.py [--seeds N] [--only NAME] [--opt-level N]

Each mutation is one replacement in a copy of the sources. It has to be caught; the table that is printed is the one in
docs/reliability.md. The copy is built beside the normal build, with the same dependencies.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# name, invariant, file, what stands there, what is put in its place
MUTATIONS = [
    ("a batch does not wait for the step of the catalog before it", 1, "src/ops/apply/lanes.rs",
     "if self.flights.values().any(|flight| flight.queue == name && !flight.item.work.is_batch()) {", "if false {"),
    ("F is committed one tick early", 1, "src/ops/apply/mod.rs",
     "while holds.front().is_some_and(|(id, _)| *id < first) {", "while holds.front().is_some_and(|(id, _)| *id <= first) {"),
    ("a channel's position is that of a tick later than F", 1, "src/ops/commit.rs",
     "Some((tick, Some(_))) if *tick > frontier => true,", "Some((tick, Some(_))) if *tick > frontier && false => true,"),
    ("a start begins at the beginning again", 2, "src/dataflow/graph.rs",
     "let floor = checkpoint.frontier.unwrap_or(Tso::ZERO);", "let floor = Tso::ZERO;"),
    ("calls go out before it is recorded how far", 3, "src/ops/apply/lanes.rs",
     "let covered = !self.limits.protected", "let covered = true || !self.limits.protected"),
    ("calls that touch a common key go out side by side", 4, "src/ops/batch.rs",
     "(are_messages || self.keys.intersects(&other.keys))", "are_messages"),
    ("a delete takes the row of its own ts", 4, "src/ops/coalesce.rs",
     "scope == partition) && *at > ts)", "scope == partition) && *at >= ts)"),
    ("the slowest channel always may read beyond the budget", 5, "src/ops/read.rs",
     "let starved = shared.is_idle() && !more && shared.ordered() >= least;", "let starved = true;"),
    ("rows in doubt are inserted, not upserted", 6, "src/dataflow/checkpoint/state.rs",
     "if self.clean { Tso::ZERO } else { self.sent_high.get(vchannel).copied().unwrap_or(Tso::ZERO) }", "let _ = vchannel;\n        Tso::ZERO"),
    ("a start after a crash does not wait for the calls of the last run", 6, "src/ops/apply/mod.rs",
     "let hold_until = (!wait.is_zero()).then(|| world.now() + wait);", "let hold_until = wait.is_zero().then(|| world.now());"),
    ("a stop is clean while something is in doubt", 6, "src/dataflow/shared.rs",
     "frontier >= self.doubt.get()", "frontier >= self.doubt.get() || true"),
    ("an insert whose answer was lost is repeated as it was", 6, "src/ops/batch.rs",
     "self.write.operation = Operation::Upsert(newest);", "drop(newest);"),
    ("a stop leaves a span undone before one that is done", 6, "src/ops/apply/lanes.rs",
     "        span < self.begun\n", "        span + 1 == self.begun\n"),
    ("a change that comes while its collection is created is dropped", 7, "src/ops/order.rs",
     "let collection = Arc::clone(self.known.get(&change.collection)?);",
     "let collection = Arc::clone(self.known.get(&change.collection)?);\n        if change.message_id % 97 == 0 {\n            return None;\n        }"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3000)
    parser.add_argument("--only", default="")
    parser.add_argument("--opt-level", default="1")
    options = parser.parse_args()
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache/migrans/target"))
    missed = 0
    print("| broken | invariant | first seed | what the simulation says |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="migrans-mutations-") as folder:
        copy = Path(folder) / "migrans"
        ignore = shutil.ignore_patterns(".git", "target")
        shutil.copytree(ROOT, copy, ignore=ignore)
        for name, invariant, file, old, new in MUTATIONS:
            if options.only not in name:
                continue
            path = copy / file
            text = path.read_text()
            if text.count(old) != 1:
                raise SystemExit(f"{file}: not exactly once there: {old}")
            path.write_text(text.replace(old, new))
            build = subprocess.run(
                ["cargo", "build", "--release", "--bin", "migrans-sim", "--config", f"profile.release.package.migrans.opt-level={options.opt_level}"],
                cwd=copy, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, capture_output=True, text=True)
            path.write_text(text)
            if build.returncode:
                raise SystemExit(f"{name}: does not compile\n{build.stderr}")
            run = subprocess.run([target / "release/migrans-sim", "--seeds", str(options.seeds), "--fail-fast"], capture_output=True, text=True, timeout=1200)
            found = re.search(r"^seed (\d+): ([^\n]*)", run.stdout, re.M)
            missed += found is None
            seed, said = found.groups() if found else ("–", "NOT CAUGHT")
            print(f"| {name} | {invariant} | {seed} | {said[:120].replace('|', '/')} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
