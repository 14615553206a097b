"""Make the figures of docs/learned.md: templates, latent coordinates, classes of sources, and reconstructions.

    python scripts/learned_figures.py [--weights default] [--data FOLDER] [--only NAME ...]

Without --data the bundled simulated observations alone are reconstructed, with the true spectrum beside the bands. FOLDER holds
one folder per real observation, each with src.pha and what it names. Same weights, same seed, same figures.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deepspec import api
from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.models.model import Model
from deepspec.parameters import ParameterSet
from deepspec.plots import recipes

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 300_000
"""Bytes that a picture of the documentation may have."""
BUNDLED = ("binary_a", "faint_a")
REAL: dict[str, dict] = {
    "pn_ngc7793_ulx4": {"title": "ultraluminous source NGC 7793 ULX-4, XMM-Newton EPIC-pn"},
    "acis_ngc4258": {"title": "nucleus of NGC 4258, Chandra ACIS-S", "notice": "0.5:8"},
    "mos1_mnlup": {"title": "active star MN Lup, XMM-Newton EPIC-MOS1", "notice": "0.3:7"},
    # its background is a rate without counts of its own, 0.3 % of the total
    "acis_cluster_annulus05": {
        "title": "annulus of a cluster of galaxies, Chandra ACIS",
        "notice": "0.5:7.5",
        "bkg": "none",
    },
}
"""Folder -> title and the choices of its fit."""


def true_spectrum(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The unabsorbed spectrum that the bundled observation `name` was drawn from."""
    made = runpy.run_path(str(ROOT / "data/make_observations.py"))
    chosen = next(exposure for exposure in made["EXPOSURES"] if exposure.file == name)
    emission = made["SOURCES"][chosen.source].emission
    edges = np.geomspace(0.2, 14.0, 601)
    model = Model("+".join(emission))
    values = ParameterSet(model.parameters)
    for component, parameters in emission.items():
        for key, value in parameters.items():
            values = values.set(f"{component}.{key}", value)
    photons = model.flux(Grid(edges), values.expand(values.vector())).reshape(-1).numpy()
    return {"the truth": (edges, photons)}


def reconstruct(
    file: Path, weights: str, draws: int, title: str, truth: dict | None = None, **choices
) -> recipes.Reconstruction:
    """Fit one observation and draw it with its posterior."""
    fitted = api.fit(str(file), recipes.with_weights("tbabs*deepspec", weights), errors="none", **choices)
    statistic = fitted.result.statistic
    words = f"{title}: tbabs*deepspec, {statistic.name} {statistic.value:.1f} in {statistic.bins} bins"
    made = recipes.reconstruction(fitted.problem, fitted.theta, draws, title=words, truth=truth)
    for text in (*fitted.result.warnings, *made.warnings):
        print(f"  {text}")
    print(f"  {statistic.name} {statistic.value:.2f} in {statistic.bins} bins; {made}")
    return made


def figures(weights: str, data: Path | None, draws: int) -> dict[str, Callable]:
    """Name -> what makes the figure."""
    jobs: dict[str, Callable] = {
        "components": lambda: recipes.components(weights),
        "latents": lambda: recipes.latents(weights),
        "activation": lambda: recipes.activation(weights),
    }
    for name in BUNDLED:
        file, title = ROOT / "data" / f"{name}.pha", f"simulated source {name}"
        jobs[name] = lambda n=name, f=file, t=title: reconstruct(f, weights, draws, t, true_spectrum(n)).figure
    for name, choices in REAL.items() if data is not None else ():
        file = data / name / "src.pha"
        jobs[name] = lambda f=file, c=choices: reconstruct(f, weights, draws, **c).figure
    return jobs


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default", help="name or file of weights")
    parser.add_argument("--data", type=Path, help="folder of real observations")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    parser.add_argument("--draws", type=int, default=512, help="of each posterior")
    parser.add_argument("--only", nargs="+", default=(), help="some of the figures, by name")
    given = parser.parse_args(arguments)
    jobs = figures(given.weights, given.data, given.draws)
    if unknown := set(given.only) - set(jobs):
        parser.error(f"there is no figure {sorted(unknown)[0]}; there are {', '.join(jobs)}")
    for name in given.only or jobs:
        begin, path = time.perf_counter(), given.out / f"learned-{name}.png"
        try:
            recipes.save(jobs[name](), path, dpi=100)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        size = path.stat().st_size
        print(f"{path.name}: {size / 1000:.0f} kB, {time.perf_counter() - begin:.0f} s", flush=True)
        if size > LARGEST:
            print(f"{path} is larger than {LARGEST / 1000:.0f} kB", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
