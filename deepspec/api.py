"""One short recipe per verb: read, fit, fake, components. The command line calls these and prints what they return."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepspec import choices as chosen_by
from deepspec.assembly import choices_of, make_problem, observe, range_warnings
from deepspec.catalogue import components
from deepspec.choices import Choices, make_choices
from deepspec.errors import UserError
from deepspec.fakes import Fake, fake
from deepspec.inference import ENGINES
from deepspec.inference.curvature import covariance
from deepspec.inference.goodness import goodness
from deepspec.inference.maximum import Maximum, MaximumOptions
from deepspec.inference.profile import Profiles, intervals, step_grid
from deepspec.io import read_observation
from deepspec.observation import Observation
from deepspec.problem import Problem
from deepspec.provenance import provenance
from deepspec.results import FitResult
from deepspec.summary import (
    data_result,
    flux_results,
    latent_warnings,
    limit_warnings,
    parameter_results,
    prior_result,
    start_warning,
    statistic_result,
    whole_band_warning,
)

__all__ = ["Fake", "Fit", "check_folder", "components", "fake", "fit", "read", "save_fit"]

#: How often a fit begins again from a better minimum that profiles came across.
RESTARTS = 3

#: All points of a steppar grid are one batch, which must fit into memory.
MOST_POINTS = 2500

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished fit: the numbers, and what is needed to plot or go on.

    Attributes
    ----------
    result : FitResult
    problem : Problem
        Its parameters are at the best fit.
    theta : Tensor, shape (P,)
        The best fit, in the order of ``problem.names``.
    covariance : Tensor, shape (P, P)
    """

    result: FitResult
    problem: Problem
    theta: Tensor
    covariance: Tensor

    def __str__(self) -> str:
        from deepspec.report import as_text, fit_table

        return as_text(fit_table(self.result))

    def save(self, folder: str | Path, plots: bool = True) -> list[Path]:
        """Write result.json and the plots into a folder, which is made if need be; returns the files."""
        return save_fit(self, folder, plots)


def read(file: str | Path, **options: Any) -> Observation:
    """An observation from a PHA file; see `deepspec.io.read_observation` for the options.

    Examples
    --------
    >>> deepspec.read("obs.pha", rmf="pn.rmf").notice(0.4, 9).group("min", 20)  # doctest: +SKIP
    """
    return read_observation(file, **options)


def fit(
    data: str | Path | Observation | Sequence[str | Path | Observation] | None = None,
    model: str | None = None,
    *,
    config: str | Path | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    **choices: Any,
) -> Fit:
    """Fit a model to one or several spectra.

    Parameters
    ----------
    data : file name, Observation, or several of either
        An Observation is taken as it is: noticed, grouped.
    model : str
        Such as "tbabs*(powerlaw+bbody)".
    config : path, optional
        result.json of an earlier fit to repeat; whatever else is given takes its place.
    progress : callable, optional
        Told (what, done, total) during long work.
    command : str, optional
        What was typed, for the result.
    **choices
        Fields of `Choices`, and ``set``, ``fix``, ``thaw``, ``limits``, ``link``, ``prior`` as mappings or texts.

    Raises
    ------
    UserError
        Whatever of this cannot be done; one sentence.

    Examples
    --------
    >>> deepspec.fit("obs.pha", "tbabs*powerlaw", notice=(0.4, 9), fix={"nH": 0.02})  # doctest: +SKIP
    """
    started = time.perf_counter()
    base, hashes = chosen_by.load_choices(config) if config is not None else (None, {})
    files, ready = _split(data)
    taken = choices_of(ready) if ready else {"files": files}
    for name in set(taken) & set(choices):
        raise TypeError(f"{name} belongs to the observations, which are given ready")
    chosen = make_choices(base, model=model, **taken, **choices)
    if not chosen.model:
        raise UserError("there is no model", "--model", 'give one, for example --model "tbabs*powerlaw"')
    bands = [chosen_by.band(text) for text in chosen.flux]
    for observation in ready:
        observation.check_fittable(chosen.stat)
    observations = ready or observe(chosen)
    changed = [
        n
        for n, o in zip(chosen.files, observations, strict=False)
        if hashes.get(n, o.spectrum.sha256) != o.spectrum.sha256
    ]
    problem = make_problem(observations, chosen)
    warnings = [f"{name} has changed since the fit in {config}" for name in changed]
    warnings += [text for o in observations if (text := whole_band_warning(o))]
    warnings += range_warnings(problem, bands, chosen.redshift)
    found = _settle(problem, chosen, progress, warnings)
    return _report(found, chosen, bands, observations, warnings, started, command, progress)


def _split(data: Any) -> tuple[list[str] | None, list[Observation]]:
    """File names, or observations that need no reading."""
    items = [] if data is None else list(data) if isinstance(data, list | tuple) else [data]
    ready = [item for item in items if isinstance(item, Observation)]
    if ready and len(ready) != len(items):
        raise TypeError("give either file names or observations, not both")
    return [os.fspath(item) for item in items if not ready] or None, ready


# --- the fit itself -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Settled:
    """A minimum with its errors, after no profile found a better one."""

    problem: Problem
    best: Maximum
    covariance: Tensor
    profiles: Profiles | None = None
    wider: Profiles | None = None
    grids: tuple[dict, ...] = ()


def _settle(problem: Problem, chosen: Choices, progress: Progress | None, warnings: list[str]) -> _Settled:
    """Fit, take errors, and begin again wherever the errors come across something better."""
    engine, options = (
        ENGINES[chosen.engine],
        MaximumOptions(starts=chosen.starts, draws=max(96, 6 * chosen.starts), seed=chosen.seed),
    )
    steps = [_axis(problem, text) for text in chosen.steppar]
    if len({name for name, _ in steps}) != len(steps) or len(steps) > 2:
        raise UserError("a grid has at most two parameters", "--steppar", "give it once or twice, for two parameters")
    size = math.prod(len(axis) for _, axis in steps)
    if size > MOST_POINTS:
        raise UserError(
            f"a grid of {size} points is too much", "--steppar", f"take at most {MOST_POINTS} points together"
        )
    best = engine(problem, options)
    for attempt in range(RESTARTS + 1):
        found, better = _errors(problem, best, chosen, steps, progress)
        if better is None:
            break
        if attempt == RESTARTS:
            warnings.append(f"profiles still found a better minimum after {RESTARTS} new fits: raise --starts")
            break
        problem = problem.with_parameters(problem.parameters.with_vector(better.tolist()))
        again = engine(problem, options)
        warnings.append(
            f"a profile came across a better minimum ({best.value:.3f} -> {again.value:.3f}); the fit began again from there"
        )
        best = again
    if found.covariance_warning:
        warnings.append(found.covariance_warning)
    return found.settled


@dataclass(frozen=True, eq=False)
class _Found:
    settled: _Settled
    covariance_warning: str | None


def _errors(
    problem: Problem, best: Maximum, chosen: Choices, steps: list, progress: Progress | None
) -> tuple[_Found, Tensor | None]:
    size = len(problem.names)
    matrix, warning = torch.full((size, size), torch.nan, dtype=torch.float64), None
    if chosen.errors != "none" and size:
        matrix, warning = covariance(problem, best.theta, best.at_limit)
    profiles = wider = None
    if chosen.errors == "profile" and size:
        profiles = intervals(problem, best.theta, matrix)
        if chosen.delta != 1.0 and profiles.better is None:
            wider = intervals(problem, best.theta, matrix, delta=chosen.delta)
    grids, better = [], [p.better for p in (profiles, wider) if p is not None and p.better is not None]
    if steps and not better:
        told = None if progress is None else lambda done, total: progress("steppar", done, total)
        grid = step_grid(problem, best.theta, dict(steps), progress=told)
        better += [grid.better] if grid.better is not None else []
        grids.append(
            {
                "names": list(grid.names),
                "units": [problem.parameters[k].parameter.unit for k in grid.names],
                "axes": [a.tolist() for a in grid.axes],
                "value": grid.value.tolist(),
                "best": best.value,
                "at": [float(best.theta[problem.names.index(k)]) for k in grid.names],
            }
        )
    fitted = problem.with_parameters(problem.parameters.with_vector(best.theta.tolist()))
    return _Found(_Settled(fitted, best, matrix, profiles, wider, tuple(grids)), warning), better[0] if better else None


def _axis(problem: Problem, text: str) -> tuple[str, Tensor]:
    """ "PAR=LO:HI:N" as a parameter and its grid."""
    source = f"--steppar {text}"
    name, equals, rest = text.partition("=")
    parts = rest.split(":")
    if not equals or len(parts) != 3:
        raise UserError("this is no grid", source, "write PAR=LO:HI:N, for example kT=0.1:0.5:21")
    low, high, count = (chosen_by.number(part, source) for part in parts)
    if not (low < high and count == int(count) and 2 <= count <= 1000):
        raise UserError("this is no grid", source, "write PAR=LO:HI:N with LO below HI and N from 2 to 1000")
    with chosen_by.option(source):
        key = problem.parameters.key(name)
        if key not in problem.names:
            raise UserError(
                f"{key} is not free, so it cannot be stepped", remedy=f"free are {', '.join(problem.names)}"
            )
    return key, torch.linspace(low, high, int(count), dtype=torch.float64)


def _report(
    found: _Settled,
    chosen: Choices,
    bands: list,
    observations: list,
    warnings: list[str],
    started: float,
    command: str | None,
    progress: Progress | None,
) -> Fit:
    """The result of a settled fit."""
    problem, best = found.problem, found.best
    warnings = [*warnings, *limit_warnings(problem, best.theta, best.at_limit), *best.warnings]
    starts = len(best.start_values)
    warnings += start_warning(starts, best.agreeing)
    prior = prior_result(problem, best.theta)
    warnings += latent_warnings(prior)
    profiled = found.profiles.intervals if found.profiles else ()
    wider = found.wider.intervals if found.wider else ()
    seconds = time.perf_counter() - started
    result = FitResult(
        model=chosen.model,
        converged=best.converged,
        message=best.message,
        statistic=statistic_result(problem, best.theta),
        parameters=parameter_results(problem, best.theta, found.covariance, best.at_limit, profiled, wider),
        fluxes=flux_results(problem, best.theta, found.covariance, bands, chosen.redshift),
        data=tuple(data_result(d, f) for d, f in zip(problem.datasets, chosen.files, strict=True)),
        engine={
            "name": chosen.engine,
            "starts": starts,
            "agreeing": best.agreeing,
            "steps": best.steps,
            "evaluations": best.evaluations,
        },
        goodness=_goodness(problem, best.theta, chosen, progress),
        covariance={"names": list(problem.names), "matrix": found.covariance.tolist()}
        if chosen.errors != "none"
        else None,
        prior=prior,
        grids=found.grids,
        warnings=tuple(dict.fromkeys(warnings)),
        settings=problem.model.settings,
        config=chosen.to_dict(),
        provenance=provenance(chosen.seed, seconds, command),
    )
    return Fit(result, problem, best.theta, found.covariance)


def _goodness(problem: Problem, theta: Tensor, chosen: Choices, progress: Progress | None) -> dict[str, Any] | None:
    if not chosen.goodness:
        return None
    tell = (lambda done: progress("goodness", done, chosen.goodness)) if progress else None
    found = goodness(problem, theta, chosen.goodness, np.random.default_rng(chosen.seed), progress=tell)
    return {
        "simulations": chosen.goodness,
        "observed": found.observed,
        "p_value": found.p_value,
        "percent_below": found.percent_below,
        "simulated_mean": float(found.simulated.mean()),
        "simulated_sigma": float(found.simulated.std()) if chosen.goodness > 1 else None,
    }


def as_table(fitted: Fit) -> Any:
    """What the terminal shows of a fit."""
    from deepspec.report import fit_table

    return fit_table(fitted.result)


# --- saving ---------------------------------------------------------------------------------------------------------


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that cannot be written to, before any work is done for it; leaves nothing behind.

    Raises
    ------
    UserError
        It is a file, lies below one, or may not be written to.
    """
    folder = Path(folder).absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        raise UserError("is a file, not a folder", f"--out {folder}", "choose another name")
    try:
        # Permissions alone do not tell: the file system may be read-only, or no real one.
        with tempfile.TemporaryDirectory(prefix=".deepspec-", dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"the folder may not be written to ({error.strerror or error})", f"--out {folder}", "choose another folder"
        ) from error


def save_fit(fitted: Fit, folder: str | Path, plots: bool = True, plot_min_sigma: float = 3.0) -> list[Path]:
    """Write result.json, spectrum.png, unfolded.png and, if there is a grid, steppar.png.

    Each file is written beside its name and then moved there.

    Raises
    ------
    UserError
        The folder cannot be made or written to; the disk is full.
    """
    from deepspec.files import write_beside, writing_failed

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(error, folder) from error
    written = [folder / "result.json"]
    fitted.result.save(written[0])
    if not plots:
        return written
    from deepspec import plots as draw

    figures = {
        "spectrum.png": lambda: draw.plot_spectrum(fitted.problem, fitted.theta, min_sigma=plot_min_sigma),
        "unfolded.png": lambda: draw.plot_unfolded(fitted.problem, fitted.theta, min_sigma=plot_min_sigma),
    }
    if fitted.result.grids:
        figures["steppar.png"] = lambda: draw.plot_steppar(fitted.result.grids[0])
    for name, make in figures.items():
        with write_beside(folder / name) as temporary:
            make().savefig(temporary, dpi=150)
        written.append(folder / name)
    return written
