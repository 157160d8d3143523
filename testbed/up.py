"""Starts a source and a target that stay up until Ctrl-C (or SIGTERM), and prints where they are as JSON.

    python -m testbed.up [--mq rocksmq|kafka|pulsar] [--file PATH] [--set-source key=value]... [--set-target key=value]... [--target-auth]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading

from .brokers import MQ
from .servers import Pair


def main() -> int:
    import yaml

    def setting(text: str):
        key, _, value = text.partition("=")
        return key, yaml.safe_load(value)

    parser = argparse.ArgumentParser(prog="python -m testbed.up", description=__doc__.split("\n")[0])
    parser.add_argument("--mq", choices=MQ, default="rocksmq", help="what the source writes its log to (default: %(default)s)")
    parser.add_argument("--file", help="write the JSON to this file too, once both are up")
    parser.add_argument("--set-source", metavar="KEY=VALUE", action="append", type=setting, default=[], help="a setting of milvus.yaml")
    parser.add_argument("--set-target", metavar="KEY=VALUE", action="append", type=setting, default=[])
    parser.add_argument("--target-auth", action="store_true", help="the target wants root:Milvus")
    args = parser.parse_args()

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Pair.start(dict(args.set_source), dict(args.set_target), target_auth=args.target_auth, mq=args.mq) as pair:
        facts = json.dumps({"source": pair.source.describe(), "target": pair.target.describe(),
                            **({"mq": pair.mq.describe()} if pair.mq else {})}, indent=2)
        print(facts, flush=True)
        times = ", ".join(f"{server.name} {server.started_in:.1f} s" for server in pair.servers)
        print(f"up: {times}; Ctrl-C ends them all", file=sys.stderr, flush=True)
        if args.file:
            with open(args.file, "w", encoding="utf-8") as f:
                f.write(facts + "\n")
        while not over.wait(1):
            for server in pair.servers:
                if not server.process.alive:
                    print(f"{server.what} ended with code {server.process.returncode}\n{server.process.log_tail()}", file=sys.stderr)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
