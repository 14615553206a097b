"""Sample XSPEC's absorption cross-sections into the table that ships with the package.

    python scripts/make_absorption_table.py [OUT.h5]

Needs xspectrampoline (``pip install deepspec[xspec]``); takes half a minute. What is sampled:

* tbabs, ztbabs: Wilms, Allen & McCray 2000, ApJ 542, 914 (gas, molecules; tbabs also grains), for nine abundance
  tables. Grains are not linear in the abundances, so every table is sampled.
* phabs: Verner & Yakovlev 1995, A&AS 109, 125 and Verner et al. 1996, ApJ 465, 487 ("vern"), per element; linear in the
  abundances.

Energies are chosen by bisection so that straight lines in log(cross-section) against log(energy) hold to `TOLERANCE`
at every midpoint; an absorption edge becomes two energies a relative 1e-6 apart. Cross-sections are per hydrogen atom
(phabs: per atom of the element) in 1e-22 cm^2, so that transmission = exp(-nH x cross-section) with nH in 1e22 cm^-2.
"""

from __future__ import annotations

import ctypes
import sys

import h5py
import numpy as np
import xspectrampoline

from deepspec import resources

ABUNDANCES = ("wilm", "angr", "aspl", "lodd", "grsa", "feld", "aneb", "lpgp", "lpgs")
SYMBOLS = "H He C N O Ne Na Mg Al Si S Cl Ar Ca Cr Fe Co Ni".split()
NUMBERS = (1, 2, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 20, 24, 26, 27, 28)
ELEMENTS = dict(zip(SYMBOLS, NUMBERS, strict=True))
ENERGY_MIN, ENERGY_MAX = 0.01, 99.9
TOLERANCE = 1e-4
CLOSEST = 1e-6

LIBRARIES = xspectrampoline.get_libraries()
XSPEC = LIBRARIES.lib_xs_functions
for setter in (XSPEC.FPSOLR, XSPEC.FPXSCT):
    setter.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
XSPEC.FGABNZ.argtypes, XSPEC.FGABNZ.restype = [ctypes.c_int], ctypes.c_float
XSPEC.FPCHAT.argtypes = [ctypes.c_int]


def choose(setter, name: str) -> None:
    status = ctypes.c_int(0)
    setter(name.encode(), ctypes.byref(status))
    if status.value:
        raise ValueError(f"XSPEC does not know {name}")


def transmission(symbol: str, energy: np.ndarray, parameters: list[float]) -> np.ndarray:
    """XSPEC's factor at single energies: bins of no width (every second bin of repeated edges)."""
    kind = np.float64 if symbol.startswith("C_") else np.float32
    edges = np.ascontiguousarray(np.repeat(energy, 2), kind)
    out = np.full(len(edges) - 1, np.nan, kind)
    LIBRARIES.get_model(symbol)(edges, np.ascontiguousarray(parameters, kind), out, np.zeros(len(out), kind))
    return out[::2].astype(float)


def cross_section(symbol: str, energy: np.ndarray, columns: np.ndarray, rest: list[float]) -> np.ndarray:
    """-ln(transmission) / nH, from the column whose optical depth is nearest to one at each energy."""
    best, distance = np.zeros(len(energy)), np.full(len(energy), np.inf)
    for column in columns:
        with np.errstate(divide="ignore"):
            depth = -np.log(transmission(symbol, energy, [column, *rest]))
            off = np.abs(np.log(depth))
        better = (off < distance) & np.isfinite(depth) & (depth > 0)
        best[better], distance[better] = depth[better] / column, off[better]
    return best


def bisect(curves, start: np.ndarray) -> np.ndarray:
    """Energies at which log-log straight lines follow all `curves` (energy -> (k, n)) to the tolerance."""
    energy, value = start, curves(start)
    pending = np.arange(len(energy) - 1)
    while len(pending):
        middle = np.sqrt(energy[pending] * energy[pending + 1])
        found = curves(middle)
        with np.errstate(divide="ignore"):
            straight = np.exp(0.5 * (np.log(value[:, pending]) + np.log(value[:, pending + 1])))
        bad = (np.abs(straight - found) > TOLERANCE * found).any(0)
        if not bad.any():
            break
        energy, value = np.concatenate([energy, middle[bad]]), np.concatenate([value, found[:, bad]], axis=1)
        order = np.argsort(energy, kind="stable")
        energy, value = energy[order], value[:, order]
        new = np.searchsorted(energy, middle[bad])
        pending = np.unique(np.concatenate([new - 1, new]))
        pending = pending[np.log(energy[pending + 1] / energy[pending]) > CLOSEST]
    return energy


def starting_energies() -> np.ndarray:
    """Coarse over the whole range, fine where O, Fe and Ne have narrow structure."""
    return np.unique(np.concatenate([np.geomspace(ENERGY_MIN, ENERGY_MAX, 400), np.arange(0.27, 1.0, 0.00025)]))


def wilms(energy: np.ndarray, abundances) -> np.ndarray:
    """tbabs and ztbabs for each abundance table, shape (2 x tables, n)."""
    columns, rows = 10.0 ** np.arange(-5, 5.1, 2.0), []
    for table in abundances:
        choose(XSPEC.FPSOLR, table)
        rows += [cross_section("C_tbabs", energy, columns, []), cross_section("C_ztbabs", energy, columns, [0.0])]
    return np.array(rows)


def verner(energy: np.ndarray, scale: list[float]) -> np.ndarray:
    """Hydrogen plus `scale` times the other seventeen elements at the abundances of angr."""
    return cross_section("xsvphb_", energy, 10.0 ** np.arange(-6, 7.1, 1.0), scale)


def verner_per_element(energy: np.ndarray, abundance: dict[str, float]) -> np.ndarray:
    """Cross-section per atom of each element, shape (18, n): as many atoms of it as of hydrogen, less hydrogen."""
    hydrogen = verner(energy, [0.0] * 17)
    rows = [hydrogen]
    for element in list(ELEMENTS)[1:]:
        scale = [1.0 / abundance[element] if other == element else 0.0 for other in list(ELEMENTS)[1:]]
        rows.append(np.maximum(verner(energy, scale) - hydrogen, 0.0))
    return np.array(rows)


def main(path) -> None:
    XSPEC.FPCHAT(0)
    choose(XSPEC.FPXSCT, "vern")
    packed = dict(compression="gzip", compression_opts=9, shuffle=True)
    with h5py.File(path, "w", libver="latest", track_order=False) as out:
        out.attrs["made_by"] = "scripts/make_absorption_table.py"
        out.attrs["sampled"] = "XSPEC 12.15.0 (HEASoft 6.35.1) through xspectrampoline, cross-sections vern"
        out.attrs["unit"] = "1e-22 cm2 per H atom (phabs: per atom of the element)"
        out.attrs["tolerance"] = TOLERANCE
        energy = bisect(lambda e: wilms(e, ["wilm", "angr"]), starting_energies())
        rows = wilms(energy, ABUNDANCES)
        out.create_dataset("tbabs/energy", data=energy, **packed)
        for i, table in enumerate(ABUNDANCES):
            out.create_dataset(f"tbabs/tbabs/{table}", data=rows[2 * i].astype(np.float32), **packed)
            out.create_dataset(f"tbabs/ztbabs/{table}", data=rows[2 * i + 1].astype(np.float32), **packed)
        choose(XSPEC.FPSOLR, "angr")
        angr = {element: float(XSPEC.FGABNZ(z)) for element, z in ELEMENTS.items()}
        metals = [1.0] + [1e3] * 16  # metals x 1000, so that their edges stand out
        both = lambda e: np.array([verner(e, [1.0] * 17), verner(e, metals)])  # noqa: E731
        energy = np.unique(bisect(both, starting_energies()).astype(np.float32)).astype(float)
        out.create_dataset("phabs/energy", data=energy, **packed)
        out.create_dataset("phabs/per_atom", data=verner_per_element(energy, angr).astype(np.float32), **packed)
        for table in ABUNDANCES:
            choose(XSPEC.FPSOLR, table)
            out[f"phabs/abundances/{table}"] = np.array([float(XSPEC.FGABNZ(z)) for z in ELEMENTS.values()])
        print(f"tbabs: {len(rows[0])} energies, phabs: {len(energy)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else resources.folder() / "absorption.h5")
    if len(sys.argv) == 1:
        resources.write_checksums()
