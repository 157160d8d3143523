"""kill -9, over one run: at every fail point of the program, and at random instants, while two writers do everything that can
happen to rows, partitions and collections. In the end the target is what the source is.

MIGRANS_KILLS says how many random instants (default 20; `make soak` takes 100), MIGRANS_SEED which, and MIGRANS_KILL_SERVERS
which servers are killed too and started again, e.g. "target,source" (default: none, see docs/reliability.md).
"""

import os
import random
import signal
import statistics
import subprocess
import time

import pytest
from conftest import readable, until, wait_for_key

from testbed import Table, Workload, all_types, plain
from testbed.migrans import binary
from testbed.recovery import recover

KILLS = int(os.environ.get("MIGRANS_KILLS", "20"))
SEED = int(os.environ.get("MIGRANS_SEED", "1"))
SERVERS_TO_KILL = [name for name in os.environ.get("MIGRANS_KILL_SERVERS", "none").split(",") if name != "none"]
SERVER_KILLS = 2  # for each, over the run
DEADLINE = 2  # seconds a call may take


class Ordeal:
    """One pipeline that is killed again and again, and what is written to its source meanwhile."""

    def __init__(self, scene):
        self.scene = scene
        self.rng = random.Random(SEED)
        self.beacon = scene.table("main_beacon", plain(dim=8))
        self.heavy = Workload([scene.table("main_int64", plain(dim=64), shards=2),
                               scene.table("main_varchar", all_types("varchar"), dynamic=True, shards=2)], seed=SEED, batch=200)
        self.changing = Workload([scene.table("main_parts", plain(key="varchar"), shards=2)], seed=SEED + 1, batch=40,
                                 replaced=[scene.table("main_again_int64", all_types(), shards=2),
                                           scene.table("main_again_varchar", plain(key="varchar"))])
        self.migrans = scene.migrans(collections=[f"default.{scene.prefix}_main_*"], settings={"delivery.call_deadline": f"{DEADLINE}s"})
        self.deaths: list[str] = []
        self.recoveries = []
        self.restarts = {scene.source: 0, scene.target: 0}

    def begin(self) -> None:
        for table in self.changing.replaced:
            table.create()
        self.beacon.create(load=True)
        Workload(self.heavy.tables + self.changing.tables[:1]).create(load=True)
        self.heavy.start(rate=25, tolerant=True)
        self.changing.start(rate=12, tolerant=True)

    # --- fail points
    def die_at(self, point: str, nth: int = 1, migrans=None, meanwhile=lambda: None) -> None:
        """Starts it with this point armed; it has to be killed there and nowhere else."""
        migrans = migrans or self.migrans
        line = f"killing itself at the fail point {point}\n"
        before = migrans.process.log_text().count(line)
        migrans.run(env={"MIGRANS_FAIL_AT": f"{point}:{nth}"})
        meanwhile()
        code = migrans.wait(60)
        assert code == -signal.SIGKILL, f"{point}: ended with {code}\n{migrans.log_tail()}"
        assert migrans.process.log_text().count(line) == before + 1, f"{point}: died elsewhere\n{migrans.log_tail()}"
        self.deaths.append(point)

    def at_fail_points(self) -> None:
        for point in fail_points():
            if point.startswith("tick."):
                continue  # only a standby has ticks: test_replicate.py
            began = time.monotonic()
            getattr(self, "_at_" + point.split(".")[0], self._anywhere)(point)
            print(f"    {point:20} {time.monotonic() - began:.1f} s", flush=True)

    def _anywhere(self, point: str) -> None:
        self.die_at(point, self.rng.randint(1, 3))

    def _at_intent(self, point: str) -> None:
        self.die_at(point)

    def _at_start(self, point: str) -> None:
        """Points of a first start: a new pipeline each, for a collection of its own."""
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5))
        table = self.scene.table(point.replace(".", "_"), plain()).create()
        table.insert(50)
        migrans = self.scene.migrans(name=table.name, collections=[table.full_name], settings={"delivery.call_deadline": f"{DEADLINE}s"})
        if point == "start.begun":
            migrans.set("source.start", began)
        self.die_at(point, migrans=migrans)
        migrans.run_until_caught_up()

    def _at_adopt(self, point: str) -> None:
        """A collection that is on the target already."""
        table = self.scene.table(point.replace(".", "_"), plain()).create()
        Table(self.scene.target, table.name, plain()).create()
        table.insert(50)
        migrans = self.scene.migrans(name=table.name, collections=[table.full_name],
                                     settings={"delivery.call_deadline": f"{DEADLINE}s", "target.adopt": True})
        self.die_at(point, migrans=migrans)
        migrans.run_until_caught_up()

    def _at_resume(self, point: str) -> None:
        """After a kill in the middle of everything, or of a step of the catalog."""
        if point == "resume.finished":
            # Recorded as begun, and nothing else: that is left to be finished for certain.
            self.die_at("intent.recorded")
        else:
            self.recover()
            self.kill("before " + point)
        self.die_at(point)

    def _at_call(self, point: str) -> None:
        if point in ("call.in_doubt", "call.again"):
            self.die_at(point, meanwhile=self._freeze_the_target)
        elif point == "call.part":
            # Parsing 50,000 keys takes a busy server longer than other calls may take.
            self.migrans.set("delivery.call_deadline", "20s")
            self.die_at(point, meanwhile=self._delete_more_than_fits_into_a_request)
            self.migrans.run()
            self._see_a_row(timeout=120)
            self.migrans.stop()
            self.migrans.set("delivery.call_deadline", f"{DEADLINE}s")
        else:
            self._anywhere(point)

    def _freeze_the_target(self) -> None:
        """Again and again, longer than a call for rows may take. Not for good: a step of the catalog waits half a minute for what it
        has to look up, and rows behind it as long; and a Milvus that is frozen for a minute ends."""
        try:
            self._see_a_row(timeout=60)
        except TimeoutError:
            # A busy target loses answers by itself, and then it has died already.
            if self.migrans.alive:
                raise
        for _ in range(8):
            self.scene.target.suspend()
            frozen = time.monotonic()
            while self.migrans.alive and time.monotonic() - frozen < 2 * DEADLINE:
                time.sleep(0.1)
            self.scene.target.resume()
            if not self.migrans.alive:
                return
            time.sleep(2)

    def _delete_more_than_fits_into_a_request(self) -> None:
        keys = ",".join(str(10**12 + i) for i in range(50_100))
        self.beacon.client.delete(self.beacon.name, f"id in [{keys}]")

    def _at_stop(self, point: str) -> None:
        def stop():
            self._see_a_row()
            self.migrans.sigterm()
        for left in reversed(range(6)):
            try:
                return self.die_at(point, meanwhile=stop)
            except AssertionError:
                # A target that is too busy for calls to end in time lets no stop be clean, and it ends with 0.
                if not left or self.migrans.process.returncode != 0:
                    raise

    def _see_a_row(self, timeout: float = 60) -> None:
        wait_for_key(self.scene.target, self.beacon, self.beacon.insert(1)[0], timeout)

    # --- random instants
    def kill(self, when: str = "at random") -> None:
        self.migrans.assert_alive()
        self.migrans.kill9()
        self.deaths.append(when)

    def recover(self) -> None:
        self.recoveries.append(recover(self.migrans, self.beacon, self.scene.target, deadline=DEADLINE))

    def at_random_instants(self, kills: int) -> None:
        end = len(self.deaths) + kills
        cycle = 0
        while len(self.deaths) < end:
            if server := self._server_of(cycle):
                self._server_too(server)
            elif cycle % 3 == 0:
                self.recover()
                time.sleep(self.rng.uniform(0, 1))
                self.kill()
            else:
                self.migrans.run()
                time.sleep(self.rng.uniform(0, 3.5))
                self.kill()
            cycle += 1
            if cycle % 25 == 0:
                print(f"    {len(self.deaths)} deaths", flush=True)

    def _server_of(self, cycle: int):
        """Every sixth time one of them. Not more often: a Milvus 2.3.5 that is killed again and again loses rows that are not flushed,
        without any help (`python -m testbed.losing_rows`)."""
        name = {3: "target", 9: "source"}.get(cycle % 12)
        server = {"target": self.scene.target, "source": self.scene.source}.get(name if name in SERVERS_TO_KILL else None)
        return server if server and self.restarts[server] < SERVER_KILLS else None

    def _server_too(self, server) -> None:
        """Killed under a pipeline, which is killed too: while the server is away, while it comes back, or later."""
        self.recover()
        time.sleep(self.rng.uniform(0, 1))
        when = self.rng.choice(["away", "coming", "later"])
        # A Milvus that is killed between the two halves of an upsert has the row twice, and so has its log: not what is tested.
        with self.heavy.whole, self.changing.whole:
            server.kill9()
        self.restarts[server] += 1
        time.sleep(self.rng.uniform(0, 1))
        if when == "away":
            self.kill(f"{server.name} away")
        server.spawn()
        if when == "coming":
            time.sleep(self.rng.uniform(0, 2))
            self.kill(f"{server.name} coming")
        server.wait_ready()
        if server is self.scene.target:
            readable(server, [self.beacon])
        else:
            until(lambda: self.beacon.insert(1), 90, "the source takes rows again", every=0.3)
        if when == "later":
            self.kill(f"{server.name} back")

    # --- the end
    def _load_again(self, table) -> None:
        """A Milvus that was killed often may not come to serve a collection again by itself."""
        try:
            readable(self.scene.source, [table], timeout=20)
        except TimeoutError:
            self.scene.source.restart()
            readable(self.scene.source, [table])

    def end(self) -> None:
        for work in (self.heavy, self.changing):
            work.stop()
        for table in (self.beacon, *self.heavy.tables, self.changing.tables[0]):
            self._load_again(table)
        self.recover()
        self.migrans.stop()
        self.migrans.run_until_caught_up()
        report = self.scene.compare()
        seconds = sorted(r.seconds for r in self.recoveries)
        beyond = sorted(r.beyond for r in self.recoveries)
        print(f"{len(self.deaths)} times killed, the source {self.restarts[self.scene.source]} times, the target "
              f"{self.restarts[self.scene.target]} times; {self.heavy.steps + self.changing.steps:,} steps written; "
              f"{report.rows:,} rows in {len(report.collections)} collections compared: 0 differences")
        print(f"from the restart to a new row on the target: median {statistics.median(seconds):.2f} s, worst {seconds[-1]:.2f} s; "
              f"without a wait of at most the deadline of {DEADLINE} s: median {statistics.median(beyond):.2f} s, "
              f"worst {beyond[-1]:.2f} s, {len(beyond)} times")


def fail_points() -> list[str]:
    run = subprocess.run([binary(), "fail-points"], capture_output=True, text=True, check=True, timeout=10)
    return [line.split("\t")[0] for line in run.stdout.splitlines()]


@pytest.mark.only(*(["rocksmq", "kafka", "pulsar"] if "MIGRANS_KILLS" in os.environ else ["rocksmq"]),
                  reason="it takes minutes; `make soak` does it on every queue")
@pytest.mark.limit(600 + 15 * KILLS)
def test_killed_anywhere(scene):
    ordeal = Ordeal(scene)
    began = time.monotonic()
    ordeal.begin()
    with ordeal.heavy, ordeal.changing:
        ordeal.at_fail_points()
        print(f"{len(ordeal.deaths)} deaths at fail points and on the way there, {time.monotonic() - began:.0f} s", flush=True)
        ordeal.at_random_instants(KILLS)
        print(f"{len(ordeal.deaths)} deaths, {time.monotonic() - began:.0f} s", flush=True)
        ordeal.end()
    frontiers = [line.split("resuming after ")[1].split(" pipeline=")[0] for line in ordeal.migrans.said().splitlines() if "resuming after " in line]
    assert frontiers == sorted(frontiers), "the frontier went back"
    print(f"{time.monotonic() - began:.0f} s")


once = pytest.mark.only("rocksmq", reason="nothing in it depends on where the messages come from")


def killed_at(migrans, point: str) -> None:
    migrans.run(env={"MIGRANS_FAIL_AT": point})
    assert migrans.wait(60) == -signal.SIGKILL, migrans.log_tail()


@once
@pytest.mark.parametrize("point", ["intent.recorded", "ddl.applied"])
@pytest.mark.parametrize("what", ["collection", "partition"])
def test_killed_in_a_drop(scene, what, point):
    """Rows from before the drop come again, and what they belong to is gone."""
    t, other = scene.table("t", plain()).create(), scene.table("other", plain()).create()
    t.create_partition("p")
    t.insert(50, "p")
    # No commit between the rows and the drop.
    migrans = scene.migrans(settings={"delivery.call_deadline": "1s", "delivery.checkpoint_interval": "1m"})
    migrans.run_until_caught_up()
    for _ in range(3):
        t.insert(100, "p")
        t.delete(30, "p", everywhere=False)
        t.insert(100)
        other.insert(10)
    t.drop() if what == "collection" else t.drop_partition("p")
    killed_at(migrans, point)
    other.insert(10)
    migrans.run_until_caught_up()
    scene.compare()


@once
@pytest.mark.parametrize("again", [False, True], ids=["undone", "undone_and_done_again"])
@pytest.mark.parametrize("what", ["collection", "partition", "index"])
def test_killed_in_a_step_that_the_source_undoes(scene, what, again):
    """A step is on the target, nobody has recorded that, and the source takes it back before the next start."""
    t, other = scene.table("t", plain()), scene.table("other", plain()).create()
    do, undo = {"collection": (t.create, t.drop),
                "partition": (lambda: t.create_partition("p"), lambda: t.drop_partition("p")),
                "index": (lambda: t.create_index("FLAT", "i"), lambda: t.client.drop_index(t.name, t.vector.name, "i"))}[what]
    if what != "collection":
        t.create()
    migrans = scene.migrans(settings={"delivery.call_deadline": "1s"})
    migrans.run_until_caught_up()
    do()
    other.insert(10)
    killed_at(migrans, "ddl.applied")
    undo()
    if again:
        do()
        t.insert(20)
    other.insert(10)
    migrans.run_until_caught_up()
    scene.compare()


@once
def test_an_unknown_fail_point_is_refused(scene):
    for value in ("nowhere", "call.sent:0", "call.sent:often"):
        scene.migrans().run(env={"MIGRANS_FAIL_AT": value}).expect(2, 10)
        assert "MIGRANS_FAIL_AT" in scene.pipelines[-1].said()
    scene.migrans().run(env={"MIGRANS_FAIL_AT": "nowhere"}).expect(2, 10)
    assert all(point in scene.pipelines[-1].said() for point in fail_points())
