"""The program under test, as a process: writes its pipeline file, starts it, stops it in every way, reads what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Sequence

from .process import Process, remove_dir, temp_dir

STOP_SECONDS = 10.0  # what is promised between SIGTERM and the end


class MigransError(AssertionError):
    """migrans did not do what it was asked to; carries the end of its log."""


def binary() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(cache, "migrans", "target")
    path = Path(os.environ.get("MIGRANS_BIN") or os.path.join(target, "release", "migrans"))
    if not path.exists():
        raise MigransError(f"no migrans at {path}: build it (cargo build --release), or say where it is in MIGRANS_BIN")
    return path


def toml(settings: dict[str, Any]) -> str:
    """Enough TOML for pipeline files."""
    def value(v) -> str:
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, (int, float)):
            return str(v)
        if isinstance(v, (list, tuple)):
            return "[" + ", ".join(map(value, v)) + "]"
        return json.dumps(str(v))  # a JSON string is a TOML basic string

    def key(k: str) -> str:
        return k if re.fullmatch(r"[\w-]+", k, re.ASCII) else json.dumps(k)

    def section(path: str, d: dict) -> list[str]:
        lines = [f"{key(k)} = {value(v)}" for k, v in d.items() if not isinstance(v, dict)]
        out = ([f"[{path}]"] if path and lines else []) + lines + ([""] if lines else [])
        for k, v in d.items():
            if isinstance(v, dict):
                out += section(f"{path}.{key(k)}" if path else key(k), v)
        return out

    return "\n".join(section("", settings))


class Migrans:
    """One pipeline from `source` to `target`. `settings` overrides keys of the file ("delivery.memory": "64MiB"; None
    removes a key); `mq` says how to come to the source's broker (its mq_settings). It can be started again and again: the state folder stays until `discard`."""

    def __init__(self, source, target, collections: Sequence[str], *, exclude: Sequence[str] = (), name: str = "test",
                 state_dir: Path | None = None, settings: dict[str, Any] | None = None, mq: dict[str, Any] | None = None):
        self.folder = temp_dir("pipeline")
        self.state_dir = Path(state_dir or self.folder / "state")
        self.file = self.folder / f"{name}.toml"
        self.report_file = self.folder / "report.json"
        self.out = self.folder / "stdout.log"
        self.process = Process("migrans", self.folder / "stderr.log")
        self.settings: dict[str, Any] = {
            "name": name,
            "state_dir": str(self.state_dir),
            "source": {"etcd": [source.etcd.endpoint], "root_path": source.root_path, "meta_path": source.meta_path,
                       "mq": source.mq_settings(**(mq or {}))},
            "select": {"collections": list(collections), **({"exclude": list(exclude)} if exclude else {})},
            "target": {"type": "milvus", "uri": target.uri, **({"token": target.token} if target.token else {})},
        }
        for key, v in (settings or {}).items():
            self.set(key, v)

    def set(self, key: str, value: Any) -> "Migrans":
        *path, last = key.split(".")
        node = self.settings
        for part in path:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
        return self

    # --- running
    def run(self, *args: str, env: dict[str, str] | None = None, write: bool = True, terminal: bool = False) -> "Migrans":
        """Starts `migrans run` in the background; `terminal` leaves standard error to our own terminal."""
        if write:
            self.file.write_text(toml(self.settings), "utf-8")
        self.report_file.unlink(missing_ok=True)
        with open(self.out, "ab") as out:
            self.process.spawn([binary(), "run", self.file, "--report", self.report_file, *args], stdout=out, env=env,
                               **({"stderr": 2} if terminal else {}))
        return self

    def check(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return self._command("check", *args, timeout=timeout)

    def remove(self, timeout: float = 60) -> subprocess.CompletedProcess:
        return self._command("remove", timeout=timeout)

    def checkpoint(self, command: str, *args: str, code: int = 0, timeout: float = 60) -> str:
        """`migrans checkpoint COMMAND FILE ...`, which is to end with `code`; returns all that it printed."""
        done = self._command(f"checkpoint {command}", *args, timeout=timeout)
        if done.returncode != code:
            raise MigransError(f"migrans checkpoint {command} ended with {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def state(self) -> dict:
        """What `migrans checkpoint show --json` says."""
        return json.loads(self.checkpoint("show", "--json"))

    def _command(self, name: str, *args: str, timeout: float) -> subprocess.CompletedProcess:
        self.file.write_text(toml(self.settings), "utf-8")
        return subprocess.run([binary(), *name.split(), self.file, *args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def tail(self, *args: str, timeout: float = 60) -> str:
        """What `migrans tail` prints; it has to end by itself."""
        self.file.write_text(toml(self.settings), "utf-8")
        run = subprocess.run([binary(), "tail", self.file, *args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if run.returncode:
            raise MigransError(f"migrans tail {' '.join(args)} ended with {run.returncode}\n{run.stderr}")
        return run.stdout

    def wait(self, timeout: float) -> int:
        """The exit code; a process that does not end in time is killed, and that is an error."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise MigransError(f"migrans has not ended after {timeout:.0f} s\n{self.log_tail()}") from None

    def expect(self, code: int, timeout: float) -> "Migrans":
        got = self.wait(timeout)
        if got != code:
            raise MigransError(f"migrans ended with {got}, expected {code}\n{self.log_tail()}")
        return self

    def run_until_caught_up(self, timeout: float = 120, **kwargs) -> dict:
        """Runs until everything that is in the source's log now has been applied; returns the report."""
        self.run("--until", "caught-up", **kwargs).expect(0, timeout)
        return self.report()

    def fail(self, code: int = 1, timeout: float = 60, args: Sequence[str] = ("--until", "caught-up")) -> str:
        """Runs, expects it to end with this code, and returns what it printed."""
        self.process.log.write_bytes(b"")
        self.out.write_bytes(b"")
        self.run(*args).expect(code, timeout)
        return self.said()

    def sigterm(self) -> None:
        self.process.signal(signal.SIGTERM)

    def stop(self) -> float:
        """SIGTERM; it has to end with 0 within the promised time. Returns the seconds it took."""
        if not self.process.alive:
            raise MigransError(f"migrans is not running any more: code {self.process.returncode}\n{self.log_tail()}")
        started = time.monotonic()
        self.sigterm()
        self.expect(0, STOP_SECONDS + 2)
        took = time.monotonic() - started
        if took > STOP_SECONDS:
            raise MigransError(f"stopping took {took:.1f} s\n{self.log_tail()}")
        return took

    def kill9(self) -> None:
        self.process.kill()

    @property
    def alive(self) -> bool:
        return self.process.alive

    def assert_alive(self) -> None:
        if not self.alive:
            raise MigransError(f"migrans ended by itself with code {self.process.returncode}\n{self.log_tail()}")

    def discard(self) -> None:
        self.process.kill()
        remove_dir(self.folder)

    def __enter__(self) -> "Migrans":
        return self

    def __exit__(self, *_) -> None:
        self.discard()

    # --- what it says
    def report(self) -> dict:
        if not self.report_file.exists():
            raise MigransError(f"migrans wrote no report\n{self.log_tail()}")
        return json.loads(self.report_file.read_text("utf-8"))

    def said(self) -> str:
        """Everything on standard error and standard output, without colours."""
        out = self.out.read_text("utf-8", "replace") if self.out.exists() else ""
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self.process.log_text() + out)

    def log_tail(self, lines: int = 15) -> str:
        return f"--- end of migrans' output ({self.folder})\n" + "\n".join(self.said().splitlines()[-lines:])
