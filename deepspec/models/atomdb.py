"""The plasma table of apec and vapec, made from AtomDB's emissivity files.

AtomDB gives, per temperature, lines [photon cm3/s] and per element a continuum [photon cm3/s/keV], at the solar abundances of
Anders & Grevesse 1989 and per n_e n_H. At norm 1, which is 1e-14 / (4 pi D^2) times the emission measure, the flux is 1e14 times that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from deepspec.files import write_beside
from deepspec.io.atomdb_files import Emission, find_atomdb, read_emissions
from deepspec.models.plasma import APEC_METALS
from deepspec.models.plasma_table import EnergyNodes, PlasmaTable, write_plasma_table

PER_NORM = 1e14
ATOMIC_NUMBER = dict(H=1, He=2, C=6, N=7, O=8, Ne=10, Mg=12, Al=13, Si=14, S=16, Ar=18, Ca=20, Fe=26, Ni=28)
PARTS = ("H", "He", *APEC_METALS, "trace")
PIECES = 8


def build_apec(
    folder: str | Path,
    path: str | Path,
    nodes: EnergyNodes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PlasmaTable:
    """Make the table of apec and vapec.

    Parameters
    ----------
    folder : folder with apec_v*_coco.fits and apec_v*_line.fits; the newest version is taken
    path : file to write; it appears whole or not at all
    nodes : EnergyNodes, optional
        0.05-100 keV at CCD resolution unless said otherwise.
    progress : callable, optional
        Called with the number of temperatures done and in all.

    Raises
    ------
    UserError
        The files are missing or broken, or the table cannot be written.
    """
    coco, line = find_atomdb(folder)
    nodes = nodes or EnergyNodes.between(0.05, 100.0)
    count, emissions = read_emissions(coco, line)
    rows, kT = [], []
    for done, emission in enumerate(emissions, start=1):
        rows.append(on_nodes(emission, nodes))
        kT.append(emission.kT)
        if progress:
            progress(done, count)
    about = {
        "model": "apec",
        "made_by": "deepspec tables build",
        "source": f"AtomDB: {coco.name}, {line.name}",
        "abundances": "angr",
        "unit": "photon/cm2/s per node at norm 1, redshift 0",
    }
    table = PlasmaTable(torch.from_numpy(np.stack(rows)), np.array(kT), PARTS, nodes, "linear", about)
    with write_beside(path) as temporary:
        write_plasma_table(temporary, table)
    return table


def on_nodes(emission: Emission, nodes: EnergyNodes) -> np.ndarray:
    """Flux of each of `PARTS` per node at norm 1, shape (n_part, n_node)."""
    out = np.zeros((len(PARTS), nodes.count))
    part_of = {ATOMIC_NUMBER[name]: index for index, name in enumerate(PARTS[:-1])}
    for element in np.unique(emission.line_element):
        mine = emission.line_element == element
        part = part_of.get(int(element), len(PARTS) - 1)
        out[part] += nodes.from_lines(emission.line_energy[mine], emission.line_flux[mine])
    cells = nodes.cells(PIECES)
    for element, energy, density in emission.continua:
        out[part_of.get(element, len(PARTS) - 1)] += nodes.from_cells(integrals(energy, density, cells), PIECES)
    return out * PER_NORM


def integrals(energy: np.ndarray, density: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Integral over each bin of straight lines between points; 0 outside them."""
    order = np.argsort(energy, kind="stable")
    energy, density = energy[order], density[order]
    at_edges = np.interp(edges, energy, density)
    step = np.diff(energy)
    sums = np.append(0.0, np.cumsum(0.5 * step * (density[1:] + density[:-1])))
    place = np.clip(np.searchsorted(energy, edges, side="right") - 1, 0, len(energy) - 1)
    inside = np.clip(edges, energy[0], energy[-1])
    total = sums[place] + 0.5 * (inside - energy[place]) * (density[place] + at_edges)
    narrow = (place[1:] == place[:-1]) & (edges[:-1] >= energy[0]) & (edges[1:] <= energy[-1])
    # within one piece the difference of sums would lose digits in a steep tail
    direct = 0.5 * np.diff(edges) * (at_edges[1:] + at_edges[:-1])
    return np.where(narrow, direct, np.maximum(np.diff(total), 0.0))
