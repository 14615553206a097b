"""From choices to a problem: files read, noticed and grouped; model, parameters and priors put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepspec import choices as chosen_by
from deepspec.choices import Choices
from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.learned.domain import check_bands, flux_warnings, trained_band
from deepspec.models.model import Model
from deepspec.models.xspec import Settings, xspec_component
from deepspec.observation import Observation
from deepspec.problem import Problem


def observe(chosen: Choices) -> list[Observation]:
    """The observations that `chosen` names, noticed and grouped as it says.

    Raises
    ------
    UserError
        A file that cannot be read or used.
    """
    count = len(chosen.files)
    if not count:
        raise UserError("there is no spectrum to fit", remedy="name at least one PHA file")
    if not chosen.notice and chosen.model and (trained := trained_band(make_model(chosen.model, chosen.abund))):
        chosen = replace(chosen, notice=(":".join(f"{end:g}" for end in trained),))
    observations = [_observe_one(chosen, index, count) for index in range(1, count + 1)]
    return _named_apart(observations, chosen.files)


def _observe_one(chosen: Choices, index: int, count: int) -> Observation:
    files = {
        name: [
            t if t.lower() == "none" else chosen.path(t)
            for t in chosen_by.paired(getattr(chosen, name), index, count, f"--{name}", name == "bkg")
        ]
        for name in ("arf", "rmf", "bkg")
    }
    observation = read_observation(
        chosen.path(chosen.files[index - 1]),
        row=chosen.row,
        arf=files["arf"][0] if files["arf"] else None,
        rmf=files["rmf"][0] if files["rmf"] else None,
        background=files["bkg"] or None,
        rmf_dir=chosen.path(chosen.rmf_dir) if chosen.rmf_dir else None,
        use_errors=chosen.use_errors,
    )
    grouping = chosen_by.for_file(chosen.group, index, count, "--group")[-1:] or ["auto"]
    early = grouping[0] == "file"
    observation = observation.group("file") if early else observation
    rule = chosen_by.for_file(chosen.rule, index, count, "--rule")[-1]
    for text in chosen_by.for_file(chosen.notice, index, count, "--notice"):
        observation = observation.notice(*chosen_by.energy_range(text, "--notice"), rule=rule)
    for text in chosen_by.for_file(chosen.ignore, index, count, "--ignore"):
        observation = observation.ignore(*chosen_by.energy_range(text, "--ignore"))
    observation = observation if early else observation.group(grouping[0])
    observation.check_fittable(chosen.stat)
    return observation


def _named_apart(observations: list[Observation], files: Sequence[str]) -> list[Observation]:
    """Names that tell the observations apart: the folder's where file names repeat, else a number."""
    names = [o.name for o in observations]
    if len(set(names)) < len(names):
        names = [Path(file).resolve().parent.name or name for file, name in zip(files, names, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{o.name}_{i}" for i, o in enumerate(observations, start=1)]
    return [o.with_name(n) for o, n in zip(observations, names, strict=True)]


def choices_of(observations: Sequence[Observation]) -> dict[str, tuple[str, ...] | bool]:
    """What of `Choices` would give these observations again: files, responses, ranges (one rule each), grouping."""
    names = ("files", "notice", "ignore", "rule", "group", "arf", "rmf", "bkg")
    found: dict[str, list[str]] = {name: [] for name in names}
    for i, observation in enumerate(observations, start=1):
        spectrum, response = observation.spectrum, observation.response
        found["files"].append(spectrum.path or observation.name)
        for selection in spectrum.selections:
            text = ":".join("" if abs(end) == float("inf") else repr(end) for end in (selection.low, selection.high))
            found["notice" if selection.keep else "ignore"].append(f"{i}={text}")
        rules = [s.rule for s in spectrum.selections if s.keep]
        found["rule"].append(f"{i}={rules[0] if rules else 'touching'}")
        found["group"].append(f"{i}={spectrum.grouping}")
        for name in ("arf", "rmf"):
            found[name].append(f"{i}={getattr(response, name, '') or 'none'}")
        apart = [b.path for b in spectrum.backgrounds if b.path != spectrum.path]
        found["bkg"] += [f"{i}={path}" for path in apart] or ([] if spectrum.backgrounds else [f"{i}=none"])
    errors = any(o.spectrum.use_errors for o in observations)
    texts = {name: tuple(value) for name, value in found.items()}
    return {**texts, "use_errors": errors}


def make_model(text: str, abundances: str = "wilm") -> Model:
    """A model whose absorbers and plasmas use the named solar abundances, XSPEC's own components too.

    Raises
    ------
    UserError
        The text cannot be read, or a component does not know the abundances.
    """
    model = Model(text)
    for leaf in model.leaves:
        with chosen_by.option(f"--abund {abundances}"):
            if leaf.component.origin == "xspec" and abundances != "wilm":
                leaf.component = xspec_component(leaf.component.name, Settings(abundances=abundances))
            elif hasattr(leaf.component, "abundances"):
                leaf.component = type(leaf.component)(abundances)
            elif hasattr(getattr(leaf.component, "rest", None), "abundances"):
                leaf.component = type(leaf.component)(abundances)
    return model


def make_problem(observations: Sequence[Observation], chosen: Choices) -> Problem:
    """Observations, model, statistic, parameters and priors put together as `chosen` says."""
    with chosen_by.option("--stat"):
        problem = Problem(observations, make_model(chosen.model, chosen.abund), chosen.stat, crosscal=chosen.crosscal)
    parameters, priors = chosen_by.apply_actions(problem.parameters, chosen.actions)
    problem = Problem(observations, problem.model, chosen.stat, parameters, priors, chosen.crosscal)
    range_warnings(problem)
    if problem.degrees_of_freedom + len(problem.priors) < 0:
        raise UserError(
            f"{len(problem.names)} free parameters are more than the {problem.bins} fitted bins can decide",
            f"model '{chosen.model}'",
            "fix some with --fix, or group less",
        )
    return problem


def range_warnings(
    problem: Problem, fluxes: Sequence[tuple[float, float]] = (), redshift: float | None = None
) -> list[str]:
    """Sentences about data outside the band that a learned component was trained for, and about fluxes it does not know.

    Parameters
    ----------
    problem : Problem
    fluxes : sequence of (low, high) [keV]
        Bands whose fluxes are wanted, and with a `redshift` their luminosities in the rest frame.

    Raises
    ------
    UserError
        Data where it has no photons at all.
    """

    def value(key: str) -> float:
        return problem.parameters[key].value

    data = [(d.name, float(d.binned.energy_low.min()), float(d.binned.energy_high.max())) for d in problem.datasets]
    asked = [*fluxes, *((low / (1.0 + redshift), high / (1.0 + redshift)) for low, high in fluxes if redshift)]
    return check_bands(problem.model, value, data) + flux_warnings(problem.model, value, asked)
