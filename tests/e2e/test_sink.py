"""The sink's own tests in Rust, which need a server: the same ones that `cargo test` passes over without it."""

import os
import subprocess
from pathlib import Path

import pytest

from testbed import Milvus

pytestmark = pytest.mark.only("rocksmq", reason="the sink does not know where rows come from")


@pytest.mark.limit(300)
def test_the_sink_against_a_real_target(scene):
    with Milvus("guarded", "by-guarded", auth=True) as guarded:
        env = {**os.environ, "MIGRANS_TEST_TARGET": scene.target.uri, "MIGRANS_TEST_AUTH_TARGET": guarded.uri}
        run = subprocess.run(["cargo", "test", "--release", "--test", "milvus_sink"], env=env, text=True,
                             capture_output=True, cwd=Path(__file__).parents[2], timeout=280, stdin=subprocess.DEVNULL)
    print(run.stdout[-4000:], run.stderr[-2000:])
    assert run.returncode == 0
    assert " 0 passed" not in run.stdout
