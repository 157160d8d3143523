"""Runs the end-to-end tests of several queues at the same time: they wait far more than they compute.

    python tests/e2e/side_by_side.py [--mq rocksmq,kafka,pulsar] [further arguments for pytest]

One process has the tests of RocksMQ, where those are that have nothing to do with a queue, and one those of the brokers. What
they print is kept apart and shown when each is done.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOGETHER = [["rocksmq"], ["kafka", "pulsar"]]
PORTS = ["15000-23000", "23000-32000"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mq", default="rocksmq,kafka,pulsar")
    options, rest = parser.parse_known_args()
    wanted = options.mq.split(",")
    groups = [[q for q in group if q in wanted] for group in TOGETHER]
    groups += [[q] for q in wanted if q not in sum(TOGETHER, [])]  # pytest says what is wrong with it
    groups = [group for group in groups if group]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", HERE, "-q", *rest]
    if len(groups) == 1:
        return subprocess.run([*pytest, "--mq", ",".join(groups[0])]).returncode

    running = {}
    for group, ports in zip(groups, PORTS):
        output = tempfile.TemporaryFile()
        name = " and ".join(group)
        running[name] = output, subprocess.Popen(
            [*pytest, "--mq", ",".join(group)], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "MIGRANS_PORTS": ports})
    # Whoever stops us stops both, and they stop their servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    worst, began = 0, time.monotonic()
    try:
        while running:
            for name, (output, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                output.seek(0)
                print(f"--- {name}, {time.monotonic() - began:.0f} s", flush=True)
                sys.stdout.buffer.write(output.read())
                sys.stdout.flush()
                worst = max(worst, abs(process.returncode))
            time.sleep(0.5)
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGINT)
        for _, process in running.values():
            process.wait()
    return worst


if __name__ == "__main__":
    sys.exit(main())
