"""How soon a pipeline is back after kill -9."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from .client import EVENTUALLY, quote
from .migrans import Migrans
from .workload import Table


@dataclass
class Recovery:
    seconds: float  # from the start of the process until a row that was inserted after the kill is found at the target
    waited: float   # as much of it as it waited for the last run's calls to be over

    @property
    def beyond(self) -> float:
        return self.seconds - self.waited


def recover(migrans: Migrans, table: Table, target, timeout: float = 60, deadline: float | None = None) -> Recovery:
    """Starts `migrans`, which was killed, and waits for a new row of `table`, which is loaded on both sides. Of its wait no
    more than `deadline` seconds are taken off, if that is given."""
    [key] = table.insert(1)
    said = len(migrans.process.log_text())
    began = time.monotonic()
    migrans.run()
    with target.client(table.database, timeout=5) as client:
        while True:
            try:
                got = client.query(table.name, f"{table.key.name} in [{quote(key)}]", [table.key.name], consistency=EVENTUALLY)
                if len(got.get(table.key.name, ())):
                    break
            except Exception as e:  # noqa: BLE001 - a server that restarts may say anything
                if time.monotonic() - began > timeout:
                    raise TimeoutError(f"no new row after {timeout:.0f} s: {e}\n{migrans.log_tail()}") from None
            migrans.assert_alive()
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"no new row after {timeout:.0f} s\n{migrans.log_tail()}")
            time.sleep(0.005)
    seconds = time.monotonic() - began
    waits = re.findall(r"waiting ([\d.]+) s until none of its calls", migrans.process.log_text()[said:])
    waited = float(waits[0]) if waits else 0.0
    return Recovery(seconds, min(waited, deadline) if deadline is not None else waited)
