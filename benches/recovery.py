"""How soon a pipeline is back after kill -9, under load.

    python -m benches.recovery [--mq rocksmq,kafka,pulsar] [--kills N] [--json FILE]

A writer inserts, upserts and deletes all the time. The pipeline is killed at a random instant, one new row is inserted, and the
time is taken from the start of the process until a query finds that row on the target. What a start after a crash has to wait
is at most the deadline of a call, here 1 s; that much is taken off, and nothing more.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from benches.measure import spread
from testbed.brokers import MQ
from testbed.migrans import Migrans
from testbed.recovery import recover
from testbed.servers import Pair
from testbed.workload import Table, Workload, plain

DEADLINE = 1.0


def bench(mq: str, kills: int) -> dict:
    rng = random.Random(3)
    with Pair.start(mq=mq) as pair:
        beacon = Table(pair.source, "beacon", plain(8))
        work = Workload([Table(pair.source, f"load{i}", plain(128), shards=2, seed=i) for i in range(2)], ddl=False)
        Workload([beacon, *work.tables]).create(load=True)
        with Migrans(pair.source, pair.target, ["default.*"], settings={"delivery.call_deadline": f"{DEADLINE:.0f}s"}) as migrans:
            migrans.run_until_caught_up()
            back = []
            with work.start(rate=25):
                migrans.run()
                for _ in range(kills):
                    time.sleep(rng.uniform(0.5, 3))
                    migrans.assert_alive()
                    migrans.kill9()
                    back.append(recover(migrans, beacon, pair.target, deadline=DEADLINE))
            work.stop()
            migrans.stop()
    result = {"seconds": [b.seconds for b in back], "waited": [b.waited for b in back], "beyond": [b.beyond for b in back]}
    print(f"{mq:8} until a new row is on the target {spread(result['seconds'], 's')}   beyond the deadline {spread(result['beyond'], 's')}"
          f"   ({kills} kills, waited {statistics.median(result['waited']):.2f} s)", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mq", default=",".join(MQ))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("kill -9 under load; medians (least … greatest)")
    result = {mq: bench(mq, options.kills) for mq in options.mq.split(",")}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
