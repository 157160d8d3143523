"""What every server of the testbed has in common: it is a process that starts, answers, stops, dies, freezes and is discarded."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable

from .process import Process, remove_dir, temp_dir

START_TIMEOUT = float(os.environ.get("MIGRANS_TESTBED_START_TIMEOUT", "120"))


class ServerError(Exception):
    pass


def home() -> Path:
    """Where install.sh put the servers and the venv."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("MIGRANS_TESTBED") or os.path.join(cache, "migrans", "testbed"))


def wait_until(ready: Callable[[], object], process: Process, what: str, timeout: float) -> None:
    """Polls `ready` (which may raise); explains with the end of the log why it never came."""
    deadline = time.monotonic() + timeout
    why = "it did not answer"
    while time.monotonic() < deadline:
        if not process.alive:
            raise ServerError(f"{what} ended with code {process.returncode}\n--- end of {process.log}\n{process.log_tail()}")
        try:
            if ready():
                return
        except Exception as e:  # noqa: BLE001 - whatever it is, it is not ready
            why = f"{type(e).__name__}: {e}"
        time.sleep(0.05)
    raise ServerError(f"{what} is not up after {timeout:.0f} s: {why}\n--- end of {process.log}\n{process.log_tail()}")


class Server:
    """One server in its own folder. A subclass says how to `_launch` it and when it is `_ready`."""

    grace = 5.0  # seconds between SIGTERM and SIGKILL

    def __init__(self, name: str, folder: Path | None = None):
        self.name = name
        self._owns_folder = folder is None
        self.folder = folder or temp_dir(name)
        self.process = Process(name, self.folder / f"{name}.log")
        self.started_in = 0.0  # seconds, the last time

    @property
    def what(self) -> str:
        """How messages call it, with its address."""
        raise NotImplementedError

    def _launch(self) -> None:
        raise NotImplementedError

    def _ready(self) -> object:
        raise NotImplementedError

    def spawn(self):
        """Starts the process without waiting for it."""
        self._spawned_at = time.monotonic()
        self._launch()
        return self

    def wait_ready(self, timeout: float = START_TIMEOUT):
        wait_until(self._ready, self.process, self.what, timeout)
        self.started_in = time.monotonic() - self._spawned_at
        return self

    def start(self):
        return self.spawn().wait_ready()

    def stop(self) -> None:
        self.process.stop(self.grace)

    def kill9(self) -> None:
        self.process.kill()

    def restart(self, down: float = 0.0, kill: bool = False) -> None:
        self.kill9() if kill else self.stop()
        time.sleep(down)
        self.start()

    def suspend(self) -> None:
        self.process.suspend()

    def resume(self) -> None:
        self.process.resume()

    def discard(self) -> None:
        """Ends it the quick way and removes its folder."""
        self.process.kill()
        if self._owns_folder:
            remove_dir(self.folder)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_) -> None:
        self.discard()
