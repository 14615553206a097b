"""Measured times: CPU seconds in this process, and CPU, wall and memory of a whole process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    section, what, case : str
    ours, sherpa : float or None
        In `unit`; None where one of the programs has nothing of the kind.
    unit : str
    aim : float or None
        What deepspec must stay below, in `unit`.
    """

    section: str
    what: str
    case: str
    ours: float | None
    sherpa: float | None
    unit: str
    aim: float | None = None

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def cpu(function: Callable[[], object], quick: bool = False, least: float = 0.2, rounds: int = 5) -> float:
    """CPU seconds of one call: the best of a few rounds, each of `least` seconds or one call, after one call to warm up."""
    function()
    if quick:
        least, rounds = 0.0, 1
    best = float("inf")
    for _ in range(rounds):
        count, started = 0, time.process_time()
        while True:
            function()
            count += 1
            spent = time.process_time() - started
            if spent >= least:
                break
        best = min(best, spent / count)
    return best


@dataclass(frozen=True)
class Process:
    """What a process took.

    Attributes
    ----------
    wall, cpu : float [s]
    memory : float [MB]
        Largest resident size.
    """

    wall: float
    cpu: float
    memory: float


def process(arguments: list[str], repeats: int = 3) -> Process:
    """The fastest of a few runs of a command, on one thread.

    A small process starts it: what the system calls its largest size counts from before the program is loaded, when it still
    is a copy of its parent.

    Raises
    ------
    RuntimeError
        The command failed.
    """
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        found.append(Process(**json.loads(done.stdout)))
    return min(found, key=lambda p: p.wall)


def _run(arguments: list[str]) -> int:
    """Run a command and print what it took; its exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    started = time.perf_counter()
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    scale = 1e6 if sys.platform == "darwin" else 1e3
    print(json.dumps(asdict(Process(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / scale))))
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
