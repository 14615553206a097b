"""Compare the minima that deepspec and Sherpa find on real observations, and write docs/minima.md.

    python scripts/compare_minima.py FOLDER [--only SET ...] [--easy] [--out FILE]

FOLDER holds ``README.md``, whose table names the observations and the band of each, and ``spectra/``. Both programs are given
the same bins, the same statistic, the same function of energy and the same starting values.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepspec.files import write_beside
from deepspec.inference.maximum import maximum
from deepspec.io import read_observation
from deepspec.models.algebra import Leaf, Node, Sum
from deepspec.models.model import Model
from deepspec.observation import Observation
from deepspec.problem import Problem, default_parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sherpa.astro.data import DataPHA
    from sherpa.astro.instrument import Response1D
    from sherpa.astro.io import read_pha
    from sherpa.fit import Fit
    from sherpa.models.basic import PowLaw1D
    from sherpa.optmethods import LevMar, NelderMead
    from sherpa.stats import Chi2DataVar, CStat, WStat

    from sherpa_plugin import models as plugin

logging.getLogger("sherpa").setLevel(logging.CRITICAL)

EASY = "tbabs*powerlaw"
#: Models with more than one minimum, and observations on which each is tried.
HARD = ("tbabs*(powerlaw+bbody)", "tbabs*(powerlaw+diskbb)", "tbabs*pcfabs*powerlaw", "tbabs*(mekal+mekal)")
HARD_SETS = (
    "pn_ngc7793_ulx4",
    "mos1_mnlup",
    "acis_3c273",
    "acis_ngc4258",
    "xrt_pc_op313",
    "acis_psrj0855",
)
#: Where both programs begin, by component and parameter; the norms share the counts.
START = {
    "tbabs.nH": 0.1,
    "powerlaw.PhoIndex": 1.7,
    "bbody.kT": 0.3,
    "diskbb.Tin": 0.5,
    "pcfabs.nH": 5.0,
    "mekal.kT": 0.4,
    "mekal_2.kT": 1.5,
}
SHERPA = {"cstat": CStat, "wstat": WStat, "chi2datavar": Chi2DataVar}
#: A lower minimum elsewhere counts from this difference on.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Case:
    """An observation, ready to fit, with a statistic and a model."""

    name: str
    band: tuple[float, float]
    observation: Observation
    statistic: str
    model: str


@dataclass(frozen=True)
class Found:
    """Where a fit ended and what it took."""

    value: float
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """Outcome of one case.

    Attributes
    ----------
    same_point : float
        Relative difference between the two programs' statistic at the same parameters.
    onwards : Found
        Sherpa's neldermead begun at our minimum.
    """

    case: Case
    bins: int
    same_point: float
    ours: Found
    levmar: Found
    neldermead: Found
    onwards: Found

    @property
    def above(self) -> float:
        """How far our minimum lies above the lowest that Sherpa found."""
        return self.ours.value - min(self.levmar.value, self.neldermead.value, self.onwards.value)


# --- the cases ------------------------------------------------------------------------------------------------------


def bands(folder: Path) -> dict[str, tuple[float, float]]:
    """Observations and their bands [keV], from the table in the README of the folder."""
    found = {}
    for line in (folder / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 8 and (band := re.fullmatch(r"([\d.]+)-([\d.]+)", cells[8])):
            found[cells[0]] = (float(band[1]), float(band[2]))
    return found


def spectrum_file(folder: Path, name: str) -> Path:
    """The spectrum of an observation, compressed or not."""
    return next((folder / "spectra" / name).glob("src.pha*"))


def cases(folder: Path, only: list[str] | None = None, hard: bool = True) -> Iterator[Case]:
    """The absorbed power law on every observation, harder models on some."""
    for name, band in bands(folder).items():
        if only and name not in only:
            continue
        observation = read_observation(spectrum_file(folder, name)).notice(*band)
        if any(not b.poisson for b in observation.spectrum.backgrounds):
            # Sherpa has no pgstat: the total is fitted, once with cstat and once with chi-squared.
            total = observation.without_background()
            settings = [("cstat", total.group()), ("chi2datavar", total.group("min:20"))]
        else:
            settings = [("wstat" if observation.spectrum.backgrounds else "cstat", observation.group())]
        for statistic, grouped in settings:
            yield Case(name, band, grouped, statistic, EASY)
        if hard and name in HARD_SETS:
            for model in HARD:
                yield Case(name, band, settings[0][1], settings[0][0], model)


def problem_of(case: Case) -> Problem:
    """The problem at the starting values that both programs share."""
    parameters = default_parameters(Model(case.model))
    for key, value in START.items():
        if key in parameters:
            parameters = parameters.set(key, value)
    problem = Problem([case.observation], case.model, case.statistic, parameters)
    norms = problem.free_norms
    with torch.no_grad():
        ((_, columns),) = problem.norm_columns(problem.parameters.vector().unsqueeze(0))
    binned = case.observation.binned
    background = 0.0 if binned.background is None else (binned.ratio * binned.background).sum()
    wanted = max(binned.counts.sum() - background, 0.1 * binned.counts.sum())
    start = problem.parameters.vector()
    start[norms] = wanted / len(norms) / columns[0].sum(-1)
    return problem.with_parameters(problem.parameters.with_vector(start.tolist()))


# --- Sherpa's side --------------------------------------------------------------------------------------------------


def sherpa_data(case: Case) -> DataPHA:
    """The observation as Sherpa reads it, with our bins and no others.

    Raises
    ------
    AssertionError
        Sherpa's counts per bin are not ours.
    """
    observation, binned = case.observation, case.observation.binned
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an energy grid that begins at 0
        data = read_pha(observation.spectrum.path)
    index = observation.binning.index
    # Channels of no bin are called bad, because a group of Sherpa's may not skip a channel otherwise.
    data.ungroup()
    data.quality = np.where(index >= 0, 0, 5)
    used = index[index >= 0]
    data.grouping = np.ones(len(index), dtype=int)
    data.grouping[index >= 0] = np.where(np.diff(used, prepend=-1) > 0, 1, -1)
    data.ignore_bad()
    data.group()
    assert np.array_equal(data.get_dep(True), binned.counts)
    if case.statistic == "wstat":
        _same_background(data.get_background(), observation)
        region = data.apply_filter(data.get_background().get_dep(False), groupfunc=np.sum)
        assert np.array_equal(region, binned.background)
    return data


def _same_background(region: DataPHA, observation: Observation) -> None:
    """Give Sherpa a background that deepspec has undone the scaling of; all others stay as Sherpa reads them."""
    (ours,) = observation.spectrum.backgrounds
    if not np.array_equal(region.counts, ours.counts):
        region.counts, region.exposure = ours.counts.copy(), ours.exposure


def sherpa_expression(node: Node, own_power_law: bool) -> tuple[object, dict[str, object]]:
    """A deepspec expression in Sherpa, and Sherpa's parameters by our keys.

    Parameters
    ----------
    own_power_law : bool
        Use Sherpa's own power law rather than ours.
    """
    if isinstance(node, Leaf):
        if own_power_law and node.component.name == "powerlaw":
            made = PowLaw1D(node.label)
            return made, {f"{node.label}.PhoIndex": made.gamma, f"{node.label}.norm": made.ampl}
        made = getattr(plugin, plugin.PREFIX + node.component.name)(node.label)
        return made, {f"{node.label}.{p.name}": p for p in made.pars}
    left, first = sherpa_expression(node.left, own_power_law)
    right, second = sherpa_expression(node.right, own_power_law)
    return (left + right if isinstance(node, Sum) else left * right), {**first, **second}


class Opponent:
    """Sherpa with the same problem."""

    def __init__(self, case: Case, problem: Problem):
        self.problem, self.data = problem, sherpa_data(case)
        source, self.parameters = sherpa_expression(problem.model.tree, own_power_law=case.model == EASY)
        self.model = Response1D(self.data)(source)
        self.statistic = SHERPA[case.statistic]()

    def place(self, theta: torch.Tensor) -> None:
        """Set all values, limits and frozen parameters as the problem has them."""
        settings = self.problem.parameters.with_vector(theta.tolist())
        for key, parameter in self.parameters.items():
            entry = settings[key]
            parameter.set(val=entry.value, min=entry.low, max=entry.high, frozen=key not in self.problem.names)

    def value(self, theta: torch.Tensor) -> float:
        """The statistic at a point."""
        self.place(theta)
        return float(Fit(self.data, self.model, self.statistic).calc_stat())

    def fit(self, method, theta: torch.Tensor) -> Found:
        """The minimum that a method of Sherpa's finds from a point."""
        self.place(theta)
        fit = Fit(self.data, self.model, self.statistic, method)
        started = time.process_time()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = fit.fit()
        return Found(float(result.statval), int(result.nfev), time.process_time() - started)


# --- both -----------------------------------------------------------------------------------------------------------


def compare(case: Case) -> Row:
    """Fit a case with both programs."""
    problem = problem_of(case)
    start = problem.parameters.vector()
    started = time.process_time()
    best = maximum(problem)
    ours = Found(best.value, best.evaluations, time.process_time() - started)
    opponent = Opponent(case, problem)
    with torch.no_grad():
        at = {theta: (float(problem.statistic(theta)), opponent.value(theta)) for theta in (start, best.theta)}
    same_point = max(abs(a - b) / max(abs(b), 1.0) for a, b in at.values())
    return Row(
        case,
        problem.bins,
        same_point,
        ours,
        opponent.fit(LevMar(), start),
        opponent.fit(NelderMead(), start),
        opponent.fit(NelderMead(), best.theta),
    )


HEAD = """# Minima against Sherpa

Written by `python scripts/compare_minima.py FOLDER`; do not edit. {cases} fits of real observations, by deepspec (16 starts)
and by Sherpa {sherpa}, with the same bins (counts per bin checked), statistic, limits, starting values and function of
energy: Sherpa gets deepspec's components through `sherpa_plugin`, and in the first table its own power law. *above* is
deepspec's minimum less the lowest of Sherpa's three: levmar and neldermead from the common start, and neldermead from
deepspec's minimum. *same point* is the larger relative difference of the two programs' statistic at the start and at the best
fit. Evaluations are those of the model (deepspec's with all derivatives); times are CPU seconds.

deepspec is higher than Sherpa by more than {tolerance} in **{worse}** of {cases} fits (the largest *above* is {worst:.1e});
levmar ends more than {tolerance} above deepspec in {levmar}, neldermead in {neldermead}.
"""
COLUMNS = (
    "| set | band (keV) | statistic | bins | deepspec | levmar | neldermead | above | same point "
    "| evaluations: deepspec, levmar, neldermead | CPU s |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def markdown(rows: list[Row]) -> str:
    """The tables as a page."""
    import sherpa

    better = {m: sum(getattr(r, m).value > r.ours.value + TOLERANCE for r in rows) for m in ("levmar", "neldermead")}
    text = HEAD.format(
        cases=len(rows),
        sherpa=sherpa.__version__,
        tolerance=TOLERANCE,
        worse=sum(r.above > TOLERANCE for r in rows),
        worst=max(r.above for r in rows),
        **better,
    )
    lines = [text]
    for model in dict.fromkeys(r.case.model for r in rows):
        lines += [f"## {model}", "", *COLUMNS, *(_line(r) for r in rows if r.case.model == model), ""]
    return "\n".join(lines).rstrip() + "\n"


def _line(row: Row) -> str:
    tried = (row.ours, row.levmar, row.neldermead)
    values = " | ".join(f"{f.value:.3f}" for f in tried)
    evaluations = ", ".join(str(f.evaluations) for f in tried)
    seconds = ", ".join(f"{f.seconds:.2f}" for f in tried)
    low, high = row.case.band
    return (
        f"| {row.case.name} | {low:g}-{high:g} | {row.case.statistic} | {row.bins} | {values} | {row.above:+.1e} "
        f"| {row.same_point:.0e} | {evaluations} | {seconds} |"
    )


def main() -> None:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="SET", help="these observations only")
    parser.add_argument("--easy", action="store_true", help=f"{EASY} only")
    parser.add_argument("--out", type=Path, default=here / "docs" / "minima.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in cases(given.folder, given.only, hard=not given.easy):
        rows.append(compare(case))
        print(case.model, _line(rows[-1]), flush=True)
    with write_beside(given.out) as beside:
        beside.write_text(markdown(rows))


if __name__ == "__main__":
    main()
