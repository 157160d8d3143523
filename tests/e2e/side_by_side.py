"""Runs the end-to-end tests of several queues at the same time: they wait far more than they compute.

    python tests/e2e/side_by_side.py [--mq rocksmq,kafka,pulsar] [further arguments for pytest]

Two rows of runs of pytest go on side by side, of about the same length: one has the tests of RocksMQ, where those are that have
nothing to do with a queue, and one those of the brokers, and then what takes up a whole server of migrans or a standby. What a
run prints is kept apart and shown when it is done.
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
# Tests on RocksMQ that are run behind those of the brokers.
APART = ["test_catalog.py", "test_cdc_api.py", "test_metrics.py", "test_replicate.py", "test_server.py", "test_server_requests.py"]
PORTS = ["15000-23000", "23000-32000"]
NOTHING = 5  # pytest: there was no test to run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mq", default="rocksmq,kafka,pulsar")
    options, rest = parser.parse_known_args()
    wanted = options.mq.split(",")
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb", "short", *rest]
    brokers = [queue for queue in wanted if queue != "rocksmq"]
    if "rocksmq" not in wanted or not brokers:
        return subprocess.run([*pytest, HERE, "--mq", options.mq]).returncode

    ignored = [f"--ignore={HERE / name}" for name in APART]
    rows = [
        [("rocksmq", [HERE, "--mq", "rocksmq", *ignored])],
        [(" and ".join(brokers), [HERE, "--mq", ",".join(brokers)]),
         ("rocksmq, servers and standbys", [*(HERE / name for name in APART), "--mq", "rocksmq"])],
    ]
    # Whoever stops us stops both, and they stop their servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    codes, began, running = [], time.monotonic(), {}
    try:
        while running or any(rows):
            for row, ports in zip(rows, PORTS):
                if ports not in running and row:
                    name, arguments = row.pop(0)
                    output = tempfile.TemporaryFile()
                    running[ports] = name, time.monotonic(), output, subprocess.Popen(
                        [*pytest, *arguments], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                        env={**os.environ, "MIGRANS_PORTS": ports})
                if ports not in running or (code := running[ports][-1].poll()) is None:
                    continue
                name, since, output, _ = running.pop(ports)
                output.seek(0)
                print(f"--- {name}, {time.monotonic() - since:.0f} s", flush=True)
                sys.stdout.buffer.write(output.read())
                sys.stdout.flush()
                codes.append(abs(code))
            time.sleep(0.5)
    finally:
        for *_, process in running.values():
            process.send_signal(signal.SIGINT)
        for *_, process in running.values():
            process.wait()
    print(f"--- all, {time.monotonic() - began:.0f} s")
    # Arguments may leave nothing of one of them, but not of all.
    return max((code for code in codes if code != NOTHING), default=NOTHING)


if __name__ == "__main__":
    sys.exit(main())
