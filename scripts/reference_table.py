"""Compare the native components with XSPEC's own values and write docs/reference-table.md.

    python scripts/reference_table.py FOLDER [OUT.md]

FOLDER holds ``xspec_reference.h5``: outputs of XSPEC 12.15.0 for each model at four parameter sets on three grids
("xmm", 5 and 10 eV bins; "chandra", 10 eV bins; "log", bins 1.4 % wide).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from deepspec.models import COMPONENTS
from deepspec.models.base import Component, Grid, Kind

OWN_TABLE = ("mekal", "vmekal")
"""Compared after smearing to CCD resolution, in tests/models/test_plasma.py."""
FAINTEST = {"gaussian": 1e-5, "zgauss": 1e-5}
"""Bins fainter than this part of the brightest are left out: XSPEC cuts the wings of lines."""


@dataclass(frozen=True)
class Row:
    """One component with one setting on one grid: differences over all bins of the four parameter sets."""

    name: str
    setting: str
    kind: Kind
    grid: str
    worst: float
    median: float
    single: bool


def _component(entry: h5py.Group, name: str) -> Component:
    made = COMPONENTS[name]()
    return COMPONENTS[name](abundances=entry.attrs["abund"]) if made.absorption else made


def _rebinned(edges: np.ndarray, flux: np.ndarray):
    """The stored input of a convolution on any bins: cumulative photons, interpolated linearly, as XSPEC does."""
    total = np.concatenate([[0.0], np.cumsum(flux)])

    def inner(grid: Grid) -> torch.Tensor:
        return torch.as_tensor(np.diff(np.interp(grid.edges.numpy(), edges, total)))

    return inner


def _compare(component: Component, entry: h5py.Group, reference: h5py.File, name: str, grid: str) -> np.ndarray:
    """Differences over all bins and sets: relative for spectra, absolute for factors."""
    single = entry.attrs["precision"] == "single"
    rounded = (lambda x: x.astype(np.float32).astype(float)) if single else (lambda x: x)
    edges = rounded(reference["grids"][grid][:])
    found = []
    for values in entry.values():
        parameters = zip(component.parameters, rounded(values["parameters"][:]), strict=True)
        named = {p.name: torch.tensor([value], dtype=torch.float64) for p, value in parameters}
        expected = values[grid][:].astype(float)
        use = np.ones(len(expected), bool)
        if component.kind is Kind.CONVOLUTION:
            inner = _rebinned(edges, reference["grids_con_input"][grid][:])
            ours = component.apply(Grid(edges), inner, **named).numpy()
            if "Redshift" in named:  # XSPEC has nothing to fill the top bins with
                use = edges[1:] * (1.0 + float(named["Redshift"])) < edges[-1]
        else:
            ours = component.evaluate(Grid(edges), **named).numpy()
        if component.kind is Kind.MULTIPLICATIVE:
            found.append(np.abs(ours - expected))
            continue
        use &= expected > max(FAINTEST.get(name, 1e-12) * expected.max(), 1e-30)
        found.append(np.abs(ours[use] / expected[use] - 1.0))
    return np.concatenate(found)


@torch.no_grad()
def rows(folder: Path) -> list[Row]:
    """Every native component of the reference file, on every grid."""
    found = []
    with h5py.File(folder / "xspec_reference.h5") as reference:
        for key, entry in reference["models"].items():
            name = entry.attrs["model"].lower()
            if name not in COMPONENTS or name in OWN_TABLE or entry.attrs["xsect"] != "vern":
                continue
            component, single = _component(entry, name), entry.attrs["precision"] == "single"
            for grid in reference["grids"]:
                off = _compare(component, entry, reference, name, grid)
                setting = key.partition("__")[2]
                found.append(Row(name, setting, component.kind, grid, float(off.max()), float(np.median(off)), single))
    return found


def markdown(found: list[Row]) -> str:
    """The table as a page."""
    lines = [
        "# Native components against XSPEC",
        "",
        "Written by `python scripts/reference_table.py FOLDER`; do not edit. XSPEC 12.15.0 (HEASoft 6.35.1), four",
        "parameter sets per component on three grids: *xmm* 0.05-15 keV in 5 and 10 eV bins, *chandra* 0.3-11 keV in",
        "10 eV bins, *log* 0.1-100 keV in bins 1.4 % wide. Spectra: relative difference of the flux per bin; factors:",
        "absolute difference of the factor. `*`: XSPEC computes it in 32 bits, so edges and parameters are rounded to",
        "32 bits here too. Lines: bins above 1e-5 of the brightest. Collisional plasma is not listed: its lines are",
        "compared after smearing to CCD resolution.",
        "",
        "| component | abundances | kind | grid | worst | median |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda r: (r.kind.value, r.name, r.setting, r.grid)):
        setting = row.setting or ("wilm" if COMPONENTS[row.name]().absorption else "")
        mark = " `*`" if row.single else ""
        lines.append(
            f"| {row.name}{mark} | {setting} | {row.kind.value} | {row.grid} | {row.worst:.1e} | {row.median:.1e} |"
        )
    return "\n".join(lines) + "\n"


def main(folder: Path, out: Path) -> None:
    text = markdown(rows(folder))
    beside = out.with_suffix(".new")
    beside.write_text(text)
    beside.replace(out)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    here = Path(__file__).resolve().parents[1]
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else here / "docs" / "reference-table.md")
