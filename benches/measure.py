"""What the benchmarks measure processes with."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from testbed.migrans import Migrans

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def spread(values: list[float], unit: str, digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} {unit}  ({min(values):.{digits}f} … {max(values):.{digits}f})"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def settle(server, at_most: float = 30) -> None:
    """Waits until a server is done with what it was given before: flushing and merging would be in the next figure."""
    deadline = time.monotonic() + at_most
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        before = cpu_seconds(server.process.pid)
        time.sleep(0.5)
        quiet = quiet + 1 if cpu_seconds(server.process.pid) - before < 0.15 else 0


def watch(migrans: Migrans, timeout: float) -> tuple[float, float]:
    """Waits for the end; returns the CPU seconds and the peak memory in MB as last seen."""
    cpu, peak = 0.0, 0
    deadline = time.monotonic() + timeout
    while migrans.alive and time.monotonic() < deadline:
        try:
            cpu, peak = cpu_seconds(migrans.process.pid), max(peak, peak_bytes(migrans.process.pid))
        except (FileNotFoundError, ProcessLookupError, IndexError):
            break
        time.sleep(0.02)
    migrans.expect(0, 30)
    return cpu, peak / 1e6
