"""Starts a source and a target that stay up until Ctrl-C (or SIGTERM), and prints where they are as JSON.

    python -m testbed.up [--file PATH] [--set-source key=value]... [--set-target key=value]... [--target-auth]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading

from .servers import Pair


def main() -> int:
    import yaml

    def setting(text: str):
        key, _, value = text.partition("=")
        return key, yaml.safe_load(value)

    parser = argparse.ArgumentParser(prog="python -m testbed.up", description=__doc__.split("\n")[0])
    parser.add_argument("--file", help="write the JSON to this file too, once both are up")
    parser.add_argument("--set-source", metavar="KEY=VALUE", action="append", type=setting, default=[], help="a setting of milvus.yaml")
    parser.add_argument("--set-target", metavar="KEY=VALUE", action="append", type=setting, default=[])
    parser.add_argument("--target-auth", action="store_true", help="the target wants root:Milvus")
    args = parser.parse_args()

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Pair.start(dict(args.set_source), dict(args.set_target), target_auth=args.target_auth) as pair:
        facts = json.dumps({"source": pair.source.describe(), "target": pair.target.describe()}, indent=2)
        print(facts, flush=True)
        print(f"up in {pair.source.started_in:.1f} s and {pair.target.started_in:.1f} s; Ctrl-C ends both", file=sys.stderr, flush=True)
        if args.file:
            with open(args.file, "w", encoding="utf-8") as f:
                f.write(facts + "\n")
        while not over.wait(1):
            for m in (pair.source, pair.target):
                if not m.process.alive:
                    print(f"{m.name} ended with code {m.process.returncode}\n{m.process.log_tail()}", file=sys.stderr)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
