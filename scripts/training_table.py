"""What a training run came to: a row per stage, and how its first figure fell.

    python scripts/training_table.py RUN [--page docs/training-log.md]

RUN is the folder of `deepspec train`; the tables go to the terminal, or between the markers `begin default` and `end default` of a page.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from deepspec.learned.checkpoint import read_weights

STAGES = ("decoder", "prior", "encoder", "joint")


def validated(path: Path) -> list[dict[str, str]]:
    """Rows of a log that hold a validation."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    known = ("step", "seconds", "loss", "rate", "spectra_per_s", "misfit", "latent", "gradient", "divergence")
    figures = [name for name in rows[0] if name not in known]
    return [{name: row[name] for name in ("step", "seconds", *figures)} for row in rows if row[figures[0]]]


def tables(run: Path) -> str:
    """Markdown: stages, then the course of each."""
    weights = read_weights(run / "weights.h5")
    lines = ["| stage | steps | spectra | hours on the clock | figures at the end |", "|---|---|---|---|---|"]
    course = []
    for stage in STAGES:
        if stage not in weights.card["stages"]:
            continue
        told, rows = weights.card["stages"][stage], validated(run / f"{stage}.csv")
        last = {k: v for k, v in rows[-1].items() if k not in ("step", "seconds")}
        figures = ", ".join(f"{name} {float(value):.3g}" for name, value in list(last.items())[:8])
        spectra = told["steps"] * told["batch"] * told["processes"]
        hours = float(rows[-1]["seconds"]) / 3600.0
        lines.append(f"| {stage} | {told['steps']:,} | {spectra:,} | {hours:.2f} | {figures} |")
        picked = [rows[min(int(f * len(rows)), len(rows) - 1)] for f in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)]
        name = next(iter(last))
        course.append(
            f"- {stage}, {name}: " + ", ".join(f"{float(r[name]):.3g} at step {int(r['step']):,}" for r in picked)
        )
    return "\n".join([*lines, "", *course]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    text = tables(options.run)
    print(text)
    if options.page:
        before, _, rest = options.page.read_text().partition("<!-- begin default -->")
        after = rest.partition("<!-- end default -->")[2]
        options.page.write_text(f"{before}<!-- begin default -->\n\n{text}\n<!-- end default -->{after}")


if __name__ == "__main__":
    main()
