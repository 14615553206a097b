"""Commands from start to end: wall time, CPU time and memory of whole processes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from clock import Row, process
from observations import Case

HERE = Path(__file__).resolve().parent
DEEPSPEC = [sys.executable, "-m", "deepspec_cli.main"]
#: Aims [s].
IMPORT_AIM, FIT_AIM = 0.3, 6.0


def commands(case: Case, quick: bool) -> list[Row]:
    """Parts (e) and (f)."""
    repeats = 1 if quick else 5
    python = process([sys.executable, "-c", "pass"], repeats)
    ours = process([sys.executable, "-c", "import deepspec"], repeats)
    sherpa = process([sys.executable, "-W", "ignore", "-c", "import sherpa.astro.ui"], repeats)
    help_page = process([*_command(), "--help"], repeats)
    rows = [
        Row("commands", "python, nothing imported", "", python.wall, python.wall, "s"),
        Row("commands", "import (deepspec, sherpa.astro.ui)", "", ours.wall, sherpa.wall, "s", IMPORT_AIM),
        Row("commands", "deepspec --help", "", help_page.wall, None, "s", IMPORT_AIM),
    ]
    with tempfile.TemporaryDirectory() as folder:
        low, high = map(str, case.band)
        fit = [*_command(), "fit", str(case.file), "--model", "tbabs*powerlaw", "--notice", f"{low}:{high}"]
        mine = process([*fit, "--group", case.group, "--out", folder], repeats)
        script = [sys.executable, str(HERE / "sherpa_script.py"), str(case.file), low, high, f"{folder}/sherpa.png"]
        theirs = process(script, repeats)
    what = "fit, covariance, plots"
    return [
        *rows,
        Row("commands", f"{what}: wall", case.name, mine.wall, theirs.wall, "s", FIT_AIM),
        Row("commands", f"{what}: CPU", case.name, mine.cpu, theirs.cpu, "s"),
        Row("commands", f"{what}: peak memory", case.name, mine.memory, theirs.memory, "MB"),
    ]


def _command() -> list[str]:
    """The `deepspec` command of this environment."""
    beside = Path(sys.executable).with_name("deepspec")
    return [str(beside)] if beside.exists() else DEEPSPEC
