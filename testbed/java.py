"""Starting a Java program out of the jars that install.sh fetched."""

from __future__ import annotations

import shutil

from .server import ServerError, home


def java(name: str, main_class: str, *args, options: list[str] | None = None) -> list[str]:
    """The command line of a class from the jars of `name` (kafka or pulsar)."""
    binary, libs = shutil.which("java"), home() / name / "libs"
    if not binary or not libs.is_dir():
        raise ServerError(f"no {name if binary else 'java'} here: run testbed/install.sh")
    # A server among others on few cores: one collector thread is enough, and gives memory back.
    return [binary, "-XX:+UseSerialGC", *(options or []), "-cp", f"{libs}/*", main_class, *map(str, args)]
