"""Measure deepspec against Sherpa on this machine, in one run.

    python benchmarks/run.py [--quick] [--sections NAME ...] [--data FOLDER] [--out FOLDER] [--page FILE]

Writes benchmarks.json and benchmarks.md into the output folder, and the page of the documentation if asked to.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from clock import Row

from deepspec.files import write_beside

SECTIONS = ("evaluation", "fit", "errors", "loading", "commands", "scaling")


def section(name: str) -> Callable:
    """The function that measures a section."""
    import evaluation
    import fits
    import processes

    return {
        "evaluation": evaluation.single_and_batch,
        "fit": fits.whole_fits,
        "errors": fits.error_bars,
        "loading": fits.loading,
        "commands": processes.commands,
        "scaling": evaluation.scaling,
    }[name]


#: Sections for which one observation is enough.
ONCE = ("commands", "scaling")

WORDS = {
    "evaluation": "Time of one evaluation [us of CPU]. Sherpa's is the statistic alone, as its optimisers call it, one at a time.",
    "fit": "A whole fit of tbabs*powerlaw from the same starting values [ms of CPU].",
    "errors": "68 % errors of all three parameters at the best fit [ms of CPU].",
    "loading": "From files to what a fit needs [ms of CPU], in a process that has done it before.",
    "commands": "Whole processes. Sherpa's script loads, fits (levmar), runs covar and draws one plot; deepspec fits from 16 starts, takes the exact covariance, computes fluxes with errors and draws two.",
    "scaling": "Statistic, gradient and Fisher matrix [us of CPU per evaluation], in batches of 64 unless said otherwise.",
}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    import astropy
    import numpy
    import sherpa

    import deepspec

    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (deepspec, torch, numpy, astropy, sherpa)},
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def markdown(rows: list[Row], facts: dict) -> str:
    """The tables as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        "Written by `python benchmarks/run.py --page docs/benchmarks.md` (`make bench` measures on your machine); do not edit.",
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load']}; one thread; Python {facts['python']}, {versions};",
        f"{facts['time']} UTC. Both programs ran in turn in the same run with the same bins, statistic and starting values; in",
        "Sherpa the absorber is a numpy function whose cross-sections are kept. *ratio* is Sherpa's over deepspec's.",
        "",
    ]
    for name in dict.fromkeys(row.section for row in rows):
        lines += [f"## {name}", "", WORDS[name], "", "| what | observation | deepspec | Sherpa | ratio | aim |"]
        lines += ["|---|---|---|---|---|---|", *(_line(row) for row in rows if row.section == name), ""]
    return "\n".join(lines).rstrip() + "\n"


def _line(row: Row) -> str:
    ratio = f"{row.sherpa / row.ours:.2g}" if row.ours and row.sherpa else ""
    aim = "" if row.aim is None else f"< {row.aim:g} {row.unit}{'' if row.ours < row.aim else ' (missed)'}"
    shown = [f"{v:.3g} {row.unit}" if v is not None else "" for v in (row.ours, row.sherpa)]
    return f"| {row.what} | {row.case} | {shown[0]} | {shown[1]} | {ratio} | {aim} |"


def main() -> None:
    import observations

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one round of everything: shows that it runs, not how fast"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME")
    parser.add_argument("--data", help='folder of real observations, or "none" for the bundled one')
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "out")
    parser.add_argument("--page", type=Path, help="also write the tables here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = observations.shared_folder() if given.data is None else None if given.data == "none" else Path(given.data)
    facts, rows = machine(), []
    for name in given.sections:
        for case in observations.cases(folder)[: 1 if name in ONCE else None]:
            for row in section(name)(case, given.quick):
                rows.append(row)
                print(f"{name:11s}", _line(row), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    pages = {given.out / "benchmarks.md": markdown(rows, facts)}
    pages[given.out / "benchmarks.json"] = json.dumps({"machine": facts, "rows": [r.to_dict() for r in rows]}, indent=1)
    if given.page:
        pages[given.page] = markdown(rows, facts)
    for path, text in pages.items():
        with write_beside(path) as beside:
            beside.write_text(text)


if __name__ == "__main__":
    main()
