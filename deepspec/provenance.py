"""Where a result comes from: command, versions, time."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from deepspec import __version__

PACKAGES = ("torch", "numpy", "sherpa")


def version_of(package: str) -> str | None:
    """Installed version, None if the package is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_line() -> str:
    """What was typed, as far as Python knows."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join([program, *sys.argv[1:]])


def provenance(seed: int, seconds: float, command: str | None = None) -> dict[str, Any]:
    """What a reader of result.json needs to know to repeat it.

    Parameters
    ----------
    seed : int
    seconds : float
        How long the work took [s].
    command : str, optional
        What was typed; found out if not given.
    """
    return {
        "command": command or command_line(),
        "deepspec": __version__,
        **{package: version_of(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }
