"""Measure how far scarce background counts move a W-stat fit, and write the table into docs/statistics.md.

    python scripts/wstat_bias.py [PAGE.md]

A constant source over 600 bins, 400 simulated spectra per row (seeded); the norm is fitted as the data are, and with bins
joined until each expects 5 or 10 counts in the background region.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from deepspec.statistics import WStat

#: Source counts, background-region counts (both per bin) and the ratio of source to background region.
CASES = ((0.3, 0.2, 0.25), (0.3, 0.2, 1.0), (0.5, 1.0, 0.5), (0.5, 2.0, 0.5))
BINS, SPECTRA, SEED = 600, 400, 18
BEGIN, END = "<!-- wstat bias from here -->\n", "<!-- wstat bias to here -->"


def fitted_norms(counts: np.ndarray, region: np.ndarray, ratio: float, shape: float) -> np.ndarray:
    """Norm of a constant source of `shape` counts per bin at the lowest W, for each row; bisection on the slope."""
    statistic = WStat.from_tensors(counts, region, np.full(counts.shape[-1], ratio))
    low, high = (
        torch.zeros(len(counts), 1, dtype=torch.float64),
        torch.full((len(counts), 1), 20.0, dtype=torch.float64),
    )
    for _ in range(60):
        middle = 0.5 * (low + high)
        rising = statistic.slope(middle * torch.full((1, counts.shape[-1]), shape, dtype=torch.float64)).sum(-1) > 0
        low, high = torch.where(rising[:, None], low, middle), torch.where(rising[:, None], middle, high)
    return (0.5 * (low + high))[:, 0].numpy()


def cell(counts: np.ndarray, region: np.ndarray, ratio: float, source: float, joined: int) -> str:
    """Mean error of the norm in per cent, and in units of the scatter between spectra."""
    width = BINS // joined * joined
    grouped = [a[:, :width].reshape(SPECTRA, -1, joined).sum(-1) for a in (counts, region)]
    norms = fitted_norms(*grouped, ratio, source * joined)
    error, scatter = norms.mean() - 1.0, norms.std()
    if norms.max() < 1e-6:
        return "-100 %"
    return f"{100 * error:+.1f} % ({error / scatter:+.1f} σ)"


def table() -> str:
    """The table as markdown."""
    lines = [
        "| $m$ per bin | background-region counts per bin | $\\alpha$ | as it is | grouped to 5 | grouped to 10 |",
        "|---|---|---|---|---|---|",
    ]
    for number, (source, background, ratio) in enumerate(CASES):
        rng = np.random.default_rng([SEED, number])
        counts = rng.poisson(source + ratio * background, (SPECTRA, BINS)).astype(float)
        region = rng.poisson(background, (SPECTRA, BINS)).astype(float)
        joins = (1, *(int(np.ceil(wanted / background)) for wanted in (5, 10)))
        cells = [cell(counts, region, ratio, source, joined) for joined in joins]
        lines.append(f"| {source:g} | {background:g} | {ratio:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "statistics.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
