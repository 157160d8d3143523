"""Metrics of a single pipeline; and all of them, the alerts and the dashboard, before a real Prometheus."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from conftest import until

from testbed import plain
from testbed.process import Process, free_ports
from testbed.serve import Server, nowhere, samples
from testbed.server import home

pytestmark = pytest.mark.only("rocksmq", reason="metrics do not know which queue they come from")
ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = home() / "prometheus"
with_prometheus = pytest.mark.skipif(not (PROMETHEUS / "promtool").exists(), reason="Prometheus could not be installed")


def answer_of(url: str) -> bytes:
    return urllib.request.urlopen(url, timeout=5).read()


def test_metrics_of_a_single_pipeline(scene):
    """The same metrics of `migrans run`, whose lags go on where the last run ended."""
    t = scene.table("t", plain()).create(load=True)
    t.insert(30)
    [port] = free_ports(1)
    migrans = scene.migrans(name="single").run("--metrics", f"127.0.0.1:{port}")

    def seen_now():
        return samples(answer_of(f"http://127.0.0.1:{port}/metrics"))
    durable = f'migrans_durable_rows_total{{pipeline="single",collection="default.{t.name}",operation="insert"}}'
    seen = until(lambda: (s := seen_now()).get(durable) == 30 and s, 40, "the metrics count the rows")
    assert seen['migrans_pipeline_state{pipeline="single",state="running"}'] == 1
    assert answer_of(f"http://127.0.0.1:{port}/readyz") == b"ok\n"
    frontier = 'migrans_frontier_timestamp_seconds{pipeline="single",stage="durable"}'
    first = until(lambda: seen_now().get(frontier), 10, "there is a frontier")
    until(lambda: seen_now()[frontier] > first + 1, 10, "it moves")
    assert seen_now()['migrans_lag_seconds{pipeline="single",stage="durable"}'] < 5
    migrans.kill9()
    scene.target.process.suspend()
    try:
        time.sleep(2)
        # The target does not answer, so the pipeline is stuck at its start: the lag is known all the same, and grows.
        migrans.run("--metrics", f"127.0.0.1:{port}")
        first = until(lambda: seen_now()['migrans_lag_seconds{pipeline="single",stage="durable"}'], 20, "there are metrics")
        time.sleep(1)
        assert 2 <= first < 60 and seen_now()['migrans_lag_seconds{pipeline="single",stage="durable"}'] >= first + 0.9
    finally:
        scene.target.process.resume()
    until(lambda: seen_now()['migrans_lag_seconds{pipeline="single",stage="durable"}'] < 2, 60, "it catches up")


def promtool(*arguments) -> None:
    run = subprocess.run([PROMETHEUS / "promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


@with_prometheus
def test_alerts_are_raised_when_they_should_be():
    promtool("check", "rules", "--lint=all", "--lint-fatal", ROOT / "deploy" / "prometheus-alerts.yml")
    promtool("test", "rules", ROOT / "tests" / "e2e" / "alerts.yml")


@with_prometheus
def test_prometheus_understands_metrics_and_dashboard(tmp_path):
    token = "read-token-0123456789"
    with Server({"tokens": {"read": [token], "write": ["write-token-0123456789"]}}, token="write-token-0123456789") as server:
        server.start().put("lost", nowhere(restart__attempts=0)).expect(201)
        server.wait_for("lost", "failed")
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}, "rule_files": [str(ROOT / "deploy" / "prometheus-alerts.yml")],
                  "scrape_configs": [{"job_name": "migrans", "authorization": {"credentials": token},
                                      "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
        [port] = free_ports(1)
        prometheus = Process("prometheus", tmp_path / "prometheus.log")
        prometheus.spawn([PROMETHEUS / "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
                          f"--web.listen-address=127.0.0.1:{port}"])

        def ask(path: str, **query):
            return json.loads(answer_of(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

        def scraped():
            [target] = ask("targets")["activeTargets"]
            assert target["health"] != "down", target["lastError"]
            return target["health"] == "up"
        try:
            until(scraped, 30, f"Prometheus takes the metrics in\n{prometheus.log_tail()}")
            [lag] = ask("query", query='migrans_lag_seconds{stage="durable"}')["result"]
            assert lag["metric"]["pipeline"] == "lost" and float(lag["value"][1]) >= 0
            kinds = {name: told[0]["type"] for name, told in ask("metadata").items()}
            assert (kinds["migrans_lag_seconds"], kinds["migrans_call_seconds"], kinds["migrans_restarts"]) == ("gauge", "histogram", "counter")
            until(lambda: any(a["labels"]["pipeline"] == "lost" for a in ask("alerts")["alerts"]), 30, "there is an alert")
            dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
            queries = [t["expr"].replace("$pipeline", ".*") for panel in dashboard["panels"] for t in panel.get("targets", [])]
            assert len(queries) > 10
            for query in queries:
                ask("query", query=query)  # 400 if it can't be read
            assert ask("query", query=queries[0])["result"], "the first panel shows something"
        finally:
            prometheus.kill()
