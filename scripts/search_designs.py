"""Train many short decoders that differ in one setting each, and compare them.

    python scripts/search_designs.py OUT [--only NAME ...] [--steps 3000] [--table docs/training-log.md]

Each run is ``deepspec train --stage decoder`` with a few ``--set``; runs that are complete are passed over, so the search can be
cut and started again. The table holds the figures of the last validation: C-stat above the truth at 1e4 and 1e5 counts, for 2,048
sources never seen, at the oracle's answer.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "base, seed 2": (),
    "linear": ("decoder.combine=linear",),
    "both": ("decoder.combine=both",),
    "both, 96 templates": ("decoder.combine=both", "decoder.templates=96"),
    "mlp": ("decoder.kind=mlp", "decoder.branch=[192, 256, 256]"),
    "8 moving": ("decoder.moving=8",),
    "linear, 8 moving": ("decoder.combine=linear", "decoder.moving=8"),
    "latent 2": ("decoder.latent=2",),
    "latent 4": ("decoder.latent=4",),
    "latent 8": ("decoder.latent=8",),
    "latent 16": ("decoder.latent=16",),
    "latent 24": ("decoder.latent=24",),
    "24 templates": ("decoder.templates=24",),
    "128 templates": ("decoder.templates=128",),
    "frequency 15": ("decoder.frequency=15",),
    "frequency 60": ("decoder.frequency=60",),
    "trunk width 64": ("decoder.trunk_width=64",),
    "trunk width 256": ("decoder.trunk_width=256",),
    "branch 384-384": ("decoder.branch=[384, 384]",),
    "KL weight 1 throughout": ("stage.decoder.beta=1.0",),
    "counts to 1e6": ("stage.decoder.counts=[1e3, 1e6]",),
    "counts to 3e4": ("stage.decoder.counts=[1e3, 3e4]",),
    "rate 1e-3": ("stage.decoder.rate=1e-3",),
    "rate 6e-3": ("stage.decoder.rate=6e-3",),
    "weight decay 0": ("optimiser.weight_decay=0.0",),
}
"""Name -> what differs from the base: 12 latents, 64 templates in ln flux, `--steps` steps of 256."""


def folder_of(out: Path, name: str) -> Path:
    return out / name.replace(",", "").replace(" ", "-")


def train(out: Path, name: str, steps: int) -> None:
    """Run one variant, or go on with it."""
    base = [
        f"stage.decoder.steps={steps}",
        "stage.decoder.batch=256",
        "stage.decoder.cameras=['pn']",
        "decoder.latent=12",
    ]
    changes = [part for change in (*base, *VARIANTS[name]) for part in ("--set", change)]
    seed = name.rpartition("seed ")[2] if "seed " in name else "1"
    command = ["deepspec", "train", "--preset", "default", "--stage", "decoder", "--seed", seed, "--threads", "1"]
    command += ["--resume", "-o", str(folder_of(out, name)), *changes]
    command[0] = str(Path(sys.executable).with_name("deepspec"))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def last_row(path: Path) -> dict[str, str] | None:
    """The row of the last validation in a stage's log."""
    if not path.exists():
        return None
    rows = [row for row in csv.DictReader(path.open()) if row.get("active")]
    return rows[-1] if rows else None


def table(out: Path, steps: int) -> str:
    """Markdown table of the runs that are complete."""
    lines = [
        "| run | setting | 1e4 median | 1e4 mean | 1e5 median | 1e5 mean | latents used | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, changes in VARIANTS.items():
        row = last_row(folder_of(out, name) / "decoder.csv")
        if row is None or int(row["step"]) < steps:
            continue
        figures = [f"{float(row[key]):.3g}" for key in ("excess 1e+04", "mean 1e+04", "excess 1e+05", "mean 1e+05")]
        setting = ", ".join(f"`{change}`" for change in changes) or "-"
        lines.append(
            f"| {name} | {setting} | {' | '.join(figures)} | {float(row['active']):.0f} | {float(row['seconds']):.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, metavar="NAME", help="of: " + "; ".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--table", type=Path, help="a page with markers `begin search` and `end search`")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in VARIANTS if options.only is None else options.only:
        train(options.out, name, options.steps)
    text = table(options.out, options.steps)
    print(text)
    if options.table:
        page = options.table.read_text()
        before, _, rest = page.partition("<!-- begin search -->")
        _, _, after = rest.partition("<!-- end search -->")
        options.table.write_text(f"{before}<!-- begin search -->\n\n{text}\n<!-- end search -->{after}")


if __name__ == "__main__":
    main()
