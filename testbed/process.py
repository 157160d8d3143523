"""Child processes that never outlive us, with a log file each, and the free ports they listen on.

A small reaper process holds the list of our children and of our temporary folders. It reads a pipe whose only writer is
this process: when we die, however that happens, the pipe ends and the reaper kills and removes what is still listed.
(PR_SET_PDEATHSIG is no substitute: it fires when the *thread* that started the child ends.)
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KEEP = bool(os.environ.get("MIGRANS_TESTBED_KEEP"))  # keep the temporary folders, to look at them afterwards

_REAPER = r"""
import os, shutil, signal, sys
pids, dirs = set(), set()
for line in sys.stdin:
    verb, what = line.rstrip("\n").split(" ", 1)
    if verb == "+p": pids.add(int(what))
    if verb == "-p": pids.discard(int(what))
    if verb == "+d": dirs.add(what)
    if verb == "-d": dirs.discard(what)
for pid in pids:
    try: os.killpg(pid, signal.SIGKILL)
    except OSError: pass
for d in dirs:
    shutil.rmtree(d, ignore_errors=True)
"""


class Reaper:
    def __init__(self):
        self._lock = threading.Lock()
        self._child = None

    def tell(self, message: str) -> None:
        with self._lock:
            if self._child is None:
                self._child = subprocess.Popen(
                    [sys.executable, "-c", _REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True)
            try:
                self._child.stdin.write(message + "\n")
                self._child.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # we are on the way out


_reaper = Reaper()
_running: set["Process"] = set()


def temp_dir(prefix: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"migrans-{prefix}-"))
    if not KEEP:
        _reaper.tell(f"+d {path}")
    return path


def remove_dir(path: Path) -> None:
    if KEEP:
        print(f"kept: {path}", file=sys.stderr)
        return
    for _ in range(5):  # a server that was just killed may still be creating files
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            break
        time.sleep(0.1)
    _reaper.tell(f"-d {path}")


_handed_out: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below the range from which the kernel picks the local end of outgoing connections.

    A port is free until its server listens, so who starts servers side by side with us takes others: MIGRANS_PORTS.
    """
    found: list[int] = []
    rng = random.SystemRandom()
    first, end = map(int, os.environ.get("MIGRANS_PORTS", "15000-32000").split("-"))
    while len(found) < count:
        port = rng.randrange(first, end)
        if port in _handed_out:
            continue
        try:
            for address in ("127.0.0.1", "0.0.0.0"):
                with socket.socket() as s:
                    s.bind((address, port))
        except OSError:
            continue
        _handed_out.add(port)
        found.append(port)
    return found


class Process:
    """One child in its own process group; standard output and error go to `log`."""

    def __init__(self, name: str, log: Path):
        self.name = name
        self.log = Path(log)
        self._popen: subprocess.Popen | None = None

    def spawn(self, argv: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, stdout=None, stderr=None):
        assert not self.alive, f"{self.name} is running already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self._popen = subprocess.Popen(
                [str(a) for a in argv], cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else log, stderr=stderr if stderr is not None else log,
                start_new_session=True)
        _reaper.tell(f"+p {self._popen.pid}")
        _running.add(self)
        return self

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        code = self._popen.wait(timeout)
        _reaper.tell(f"-p {self.pid}")
        _running.discard(self)
        return code

    def kill(self) -> None:
        """SIGKILL for the whole process group, and wait until it is gone."""
        if self.alive:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self._popen is not None:
            self.wait(30)

    def stop(self, grace: float) -> None:
        """SIGTERM, some time to end, SIGKILL."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def suspend(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def cpu_seconds(self) -> float:
        """User and system time that the process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self, peak: bool = False) -> int:
        key = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        return 0


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.kill()
