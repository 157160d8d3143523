"""What `migrans serve` says to requests: wrong ones, ten thousand out of a seed, and those that its description allows."""

import os
import socket
import subprocess
import threading

import pytest
from conftest import wait_for_rows

from testbed import plain
from testbed.fuzz import Fuzz, exchange
from testbed.serve import definition, files_others_can_read, nowhere
from testbed.server import home

pytestmark = pytest.mark.only("rocksmq", reason="the server does not know which queue its pipelines read")


def test_requests_that_are_wrong_are_told_so(server):
    big = b'{"a": "' + b"x" * (2 << 20) + b'"}'
    path = "/api/v1/pipelines/p"
    for method, where, body, headers, status in [
        ("GET", "/", None, {}, 404), ("GET", "/api/v1/", None, {}, 404), ("GET", path, None, {}, 404), ("GET", path + "/report", None, {}, 404),
        ("POST", path, b"{}", {}, 405), ("PATCH", "/api/v1/pipelines", None, {}, 405), ("DELETE", "/healthz", None, {}, 405),
        ("PUT", path, b"{}", {}, 415), ("PUT", path, b"{}", {"Content-Type": "text/plain"}, 415),
        ("PUT", path, b"{", {"Content-Type": "application/json"}, 400), ("PUT", path, b"", {"Content-Type": "application/json"}, 400),
        ("PUT", path, b"a = ", {"Content-Type": "application/toml"}, 400), ("PUT", path, b"\xff", {"Content-Type": "application/toml"}, 400),
        ("PUT", path, b"[" * 5000, {"Content-Type": "application/json"}, 400), ("PUT", path, b"null", {"Content-Type": "application/json"}, 422),
        ("PUT", path, b"{}", {"Content-Type": "application/json"}, 422), ("PUT", path + "?paused=maybe", b"{}", {"Content-Type": "application/json"}, 400),
        ("PUT", path, big, {"Content-Type": "application/json"}, 413), ("DELETE", path + "?state=burn", None, {}, 400),
        ("POST", path + "/pause", None, {}, 404), ("POST", path + "/pause", big, {"Content-Type": "application/json"}, 413),
        ("PUT", "/api/v1/pipelines/%ff", b"{}", {"Content-Type": "application/json"}, 400), ("GET", path + "/nothing", None, {}, 404),
    ]:
        try:
            answer = server.request(method, where, body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            assert status == 413, "only a body that is too large may be cut off"
            continue
        answer.problem(status)
        assert status != 405 or answer.headers.get("allow"), (method, where)
    # A body without an end is not waited for.
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(40):
                s.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            pass
        assert b" 413 " in s.recv(100)
    assert server.list() == {}


def test_ten_thousand_requests_out_of_a_seed(server):
    """Neither crash nor leak, nor half a pipeline: what is there afterwards is whole, and there after a kill too."""
    good = nowhere(target__token="hush-hush", labels={"a": "b"})
    seed = int(os.environ.get("MIGRANS_SEED", "1"))
    total, statuses, failures = 10_000, [], []
    rounds = [Fuzz(seed * 1000 + i, good) for i in range(4)]
    fuzz = [[f.request() for _ in range(total // 4)] for f in rounds]
    before = server.process.resident_bytes()

    def run(requests):
        try:
            statuses.extend(exchange(server.port, requests))
        except BaseException as e:  # noqa: BLE001
            failures.append(e)
    threads = [threading.Thread(target=run, args=(requests,)) for requests in fuzz]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures
    counts = {s: statuses.count(s) for s in sorted(set(statuses))}
    assert len(statuses) == total and counts.get(0, 0) < total / 100, counts
    for status, least in {200: 500, 201: 10, 400: 500, 409: 5, 413: 5, 422: 1000}.items():
        assert counts.get(status, 0) >= least, counts
    assert server.process.alive and "panicked" not in server.said(), server.process.log_tail()
    assert "hush" not in server.said()
    assert server.process.resident_bytes() < before + (128 << 20)
    there = server.list()
    assert set(there) <= {"a", "b", "c"} and all(p["definition"]["source"]["etcd"] and p["created"] for p in there.values()), there
    server.kill9()
    server.start()
    assert {n: (p["definition"], p["created"], p["changed"]) for n, p in server.list().items()} == \
        {n: (p["definition"], p["created"], p["changed"]) for n, p in there.items()}
    assert files_others_can_read(server.data_dir) == []
    for name in there:
        server.delete(name).expect(200)


def hold_against_description(server, *arguments, options=()) -> None:
    """schemathesis makes up requests from the description, and holds every answer against it."""
    program = home() / "schemathesis" / "bin" / "st"
    assert program.exists(), f"no {program}: run testbed/install.sh"
    url = f"http://127.0.0.1:{server.port}"
    # One worker: parsing Python on several threads at once fails in CPython 3.11.
    run = subprocess.run(
        [program, *options, "run", f"{url}/api/v1/openapi.json", "--url", url, "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method",
         "--exclude-path-regex", "/events$", "--seed", "1", "--workers", "1", "--request-timeout", "30", "--no-color", *arguments],
        capture_output=True, text=True, timeout=120, cwd=server.folder, stdin=subprocess.DEVNULL)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert server.process.alive and "panicked" not in server.said()


def test_the_api_is_as_it_is_described(server):
    assert server.request("GET", "/api/v1/openapi.json").expect(200)["openapi"].startswith("3.")
    hold_against_description(server, "--phases", "examples,coverage,fuzzing", "--max-examples", "15")


def test_a_pipeline_that_runs_is_as_it_is_described(scene, server):
    """Made-up names are mostly those of no pipeline: these requests are all about one that is there."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(20)
    server.put("p", definition(scene.source, scene.target, [scene.pattern])).expect(201)
    wait_for_rows(scene.target, t.name, 20)
    (server.folder / "schemathesis.toml").write_text('[parameters]\n"path.name" = "p"\n')
    hold_against_description(server, "--phases", "fuzzing", "--max-examples", "6", "--exclude-method", "DELETE",
                             options=["--config-file", server.folder / "schemathesis.toml"])
    assert 'paused pipeline="p"' in server.said(), "they were about it"
    server.post("p", "resume").expect(200)
    t.insert(5)
    wait_for_rows(scene.target, t.name, 25)
    assert list(server.list()) == ["p"]
