"""The observations that are measured, in both programs: the same bins, statistic and starting values."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepspec.io import read_observation
from deepspec.models.model import Model
from deepspec.problem import Problem, default_parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from absorber import Absorber
    from sherpa.astro.data import DataPHA
    from sherpa.astro.instrument import Response1D
    from sherpa.astro.io import read_pha
    from sherpa.data import DataSimulFit
    from sherpa.fit import Fit, IterCallback
    from sherpa.models.basic import PowLaw1D
    from sherpa.models.model import SimulFitModel
    from sherpa.stats import WStat

logging.getLogger("sherpa").setLevel(logging.CRITICAL)

ROOT = Path(__file__).resolve().parents[1]
MODEL = "tbabs*powerlaw"
TWO_COMPONENTS = "tbabs*(powerlaw+bbody)"
START = {"nH": 0.1, "PhoIndex": 1.7, "kT": 0.3, "powerlaw.norm": 1e-4, "bbody.norm": 1e-6}


@dataclass(frozen=True)
class Case:
    """An observation by file name and band [keV], grouped as its file says or not at all."""

    name: str
    file: Path
    band: tuple[float, float]
    group: str = "file"


def cases(folder: Path | None) -> list[Case]:
    """The two observations of the issue if the folder of real observations is there, else a bundled one."""
    if folder is None:
        return [Case("binary_a", ROOT / "data" / "binary_a.pha", (0.5, 7.0), "none")]
    spectra = folder / "spectra"
    found = [("pn_ngc7793_ulx4", (0.3, 10.0)), ("acis_3c273", (0.5, 7.0))]
    return [Case(name, next((spectra / name).glob("src.pha*")), band) for name, band in found]


def shared_folder() -> Path | None:
    """The folder of real observations: DEEPSPEC_SHARED_DATA, or ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("DEEPSPEC_SHARED_DATA", ROOT.parent / "shared" / "data"))
    return folder if (folder / "README.md").is_file() else None


def problem(case: Case, model: str = MODEL) -> Problem:
    """deepspec's side."""
    observation = read_observation(case.file).group(case.group).notice(*case.band)
    parameters = default_parameters(Model(model))
    for name, value in START.items():
        if "." not in name or name in parameters:
            parameters = parameters.set(name, value) if _has(parameters, name) else parameters
    return Problem([observation], model, "wstat", parameters)


def _has(parameters, name: str) -> bool:
    return any(key == name or key.endswith(f".{name}") for key in parameters)


def spread(problem: Problem, count: int, seed: int = 0) -> torch.Tensor:
    """Parameter vectors around the present values, shape (count, P)."""
    centre = problem.parameters.vector()
    shape = (count, len(centre))
    factors = torch.exp(0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return centre * factors


class Sherpa:
    """Sherpa's side: its own power law, and an absorber in numpy whose cross-sections are kept.

    The statistic of both sides is the same to 1e-8, which `check` asserts.
    """

    def __init__(self, case: Case):
        self.case = case
        self.data = load(case)
        self.absorber, self.power_law = Absorber("gal"), PowLaw1D("p1")
        self.source = self.absorber * self.power_law
        self.model = Response1D(self.data)(self.source)
        self.reset()

    def reset(self) -> None:
        """Back to the starting values, within the limits that deepspec has."""
        self.absorber.nH.set(val=START["nH"], min=0.0, max=1e5)
        self.power_law.gamma.set(val=START["PhoIndex"], min=-2.0, max=9.0)
        self.power_law.ampl.set(val=START["powerlaw.norm"], min=0.0, max=1e20)

    def fit(self, method=None, errors=None) -> Fit:
        """A fit from the starting values."""
        self.reset()
        return Fit(self.data, self.model, WStat(), method, errors)

    def callback(self) -> IterCallback:
        """The statistic as Sherpa's optimisers call it: started up, so only the energies that matter are evaluated."""
        whole = SimulFitModel("whole", (self.model,))
        whole.startup(True)
        return IterCallback(DataSimulFit("whole", (self.data,)), whole, WStat())

    def check(self, ours: Problem) -> None:
        """Both programs have the same bins and the same statistic at the same point."""
        self.reset()
        theta = ours.parameters.vector()
        theirs = self.callback()(theta.numpy())[0]
        with torch.no_grad():
            here = float(ours.statistic(theta))
        if len(self.data.get_dep(True)) != ours.bins or not np.isclose(here, theirs, rtol=1e-8):
            raise RuntimeError(f"{self.case.name}: not the same problem ({here!r}, {theirs!r})")


def load(case: Case) -> DataPHA:
    """The observation as Sherpa reads it, with the same bins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = read_pha(str(case.file))
    data.set_analysis("energy")
    data.ungroup()
    data.ignore_bad()
    if case.group == "file":
        data.group()
    data.ignore()  # after ignore_bad a bare notice would add the range to all that is noticed
    data.notice(*case.band)
    return data
