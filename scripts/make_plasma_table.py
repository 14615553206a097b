#!/usr/bin/env python3
"""Make deepspec/tables/mekal.h5: the emission of a MEKAL plasma per element, sampled from XSPEC's own code.

usage: XSPEC_MDATA_DIR=FOLDER/ python scripts/make_plasma_table.py [OUT.h5]

FOLDER holds mekal1.dat ... mekal6.dat of XSPEC's modelData. Needs xspectrampoline; takes about six minutes of one processor (PROCESSES=2 halves it).

Sources: Mewe, Gronenschild & van den Oord 1985 (A&AS 62, 197); Mewe, Lemen & van den Oord 1986 (A&AS 65, 511); Kaastra 1992;
Liedahl, Osterheld & Goldstein 1995 (ApJ 438, L115); code: vmekal of XSPEC 12.15.0 (HEASoft 6.35.1), switch = 0.

Method
- The part of an element is (F(all solar) - F(this element 0.3 solar)) / 0.7, that of hydrogen what is left. XSPEC leaves out ions
  below an absolute abundance, so it is not quite linear in the abundances; the chord between 0.3 and 1 solar follows it where
  abundances are found.
- Cells far narrower than the nodes are sampled and shared among the nodes so that flux and mean energy of each line are kept.
- Rows are 0.05 dex apart; the table holds the coefficients of the cubic spline in ln kT through them.
"""

import ctypes
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import torch

from deepspec import resources
from deepspec.models.plasma_table import EnergyNodes, PlasmaTable, spline_coefficients, write_plasma_table

ELEMENTS = ["He", "C", "N", "O", "Ne", "Na", "Mg", "Al", "Si", "S", "Ar", "Ca", "Fe", "Ni"]
LOW_kT, HIGH_kT, SPACING = 0.0808, 79.9, 0.05
CHORD = 0.3
NODES = EnergyNodes.between(0.05, 100.0)
PIECES = 10
DENSITY = 1.0  # cm^-3; the spectrum does not depend on it by more than 1e-6 up to 1e10


def _vmekal():
    import xspectrampoline

    libraries = xspectrampoline.get_libraries()
    functions = libraries.lib_xs_functions
    functions.FPSOLR.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
    functions.FPSOLR(b"angr", ctypes.byref(ctypes.c_int(0)))
    model, edges = libraries.get_model("C_vmekal"), np.ascontiguousarray(NODES.cells(PIECES))

    def nodes_of(kT: float, abundances: np.ndarray) -> np.ndarray:
        flux = np.full(len(edges) - 1, np.nan)
        model(edges, np.array([kT, DENSITY, *abundances, 0.0, 0.0]), flux, np.zeros(len(flux)))
        if not np.isfinite(flux).all() or not (flux > 0).any():
            raise SystemExit(
                "vmekal gave nothing: does XSPEC_MDATA_DIR (with a final /) hold mekal1.dat ... mekal6.dat?"
            )
        return NODES.from_cells(flux, PIECES)

    return nodes_of


def row(kT: float) -> np.ndarray:
    """Parts at one temperature, shape (1 + n_element, n_node)."""
    nodes_of, solar = _vmekal(), np.ones(len(ELEMENTS))
    full, parts = nodes_of(kT, solar), []
    for index in range(len(ELEMENTS)):
        less = solar.copy()
        less[index] = CHORD
        parts.append(np.maximum((full - nodes_of(kT, less)) / (1.0 - CHORD), 0.0))
    return np.stack([np.maximum(full - sum(parts), 0.0), *parts])


def main(path: Path) -> None:
    count = int(np.ceil(np.log10(HIGH_kT / LOW_kT) / SPACING)) + 5
    kT = LOW_kT * 10.0 ** (SPACING * (np.arange(count) - 2.0))
    with multiprocessing.get_context("spawn").Pool(int(os.environ.get("PROCESSES", "1"))) as pool:
        rows = np.stack(pool.map(row, kT, chunksize=1))
    about = {
        "model": "mekal",
        "made_by": "scripts/make_plasma_table.py",
        "source": "vmekal of XSPEC 12.15.0 (HEASoft 6.35.1), switch 0; Mewe, Gronenschild & van den Oord 1985; Liedahl et al. 1995",
        "abundances": "angr",
        "unit": "photon/cm2/s per node at norm 1, redshift 0",
    }
    coefficients = torch.from_numpy(spline_coefficients(rows))
    table = PlasmaTable(coefficients, kT, ("H", *ELEMENTS), NODES, "cubic", about)
    write_plasma_table(path, table, log_step=2e-3)
    if path.parent == resources.folder():
        resources.write_checksums()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else resources.folder() / "mekal.h5")
