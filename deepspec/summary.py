"""From a fitted problem to the frozen parts of a result: parameters with intervals, statistic, fluxes, data, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepspec.expected import expected_total
from deepspec.fluxes import flux_with_errors, luminosity_with_errors
from deepspec.io.summary import usable_band
from deepspec.learned.domain import learned_leaves
from deepspec.observation import Observation
from deepspec.problem import Dataset, Problem
from deepspec.results import DataResult, FluxResult, ParameterResult, StatisticResult

FLUX_UNIT = "erg cm^-2 s^-1"
LUMINOSITY_UNIT = "erg s^-1"


def parameter_results(
    problem: Problem,
    theta: Tensor,
    covariance: Tensor,
    at_limit: Sequence[str],
    intervals: Sequence[Any],
    wider: Sequence[Any] = (),
) -> dict[str, ParameterResult]:
    """Every parameter with its 68 % interval, from profiles where there are some, else from the covariance.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    covariance : Tensor, shape (P, P)
        NaN rows where there is no interval.
    at_limit : names that ended at a limit.
    intervals : profile intervals (name, low, high, low_reached, high_reached) at a rise of 1.
    wider : the same at another rise.
    """
    fitted = problem.parameters.with_vector(theta.tolist())
    profiled, other = ({i.name: i for i in found} for found in (intervals, wider))
    results = {}
    for key in fitted:
        entry = fitted[key]
        common = {
            "value": entry.value,
            "unit": entry.parameter.unit,
            "frozen": entry.frozen or entry.parameter.switch,
            "link": entry.link,
            "low": entry.low,
            "high": entry.high,
            "prior": problem.priors[key].text if key in problem.priors else None,
        }
        if key in profiled:
            common |= _from_profile(profiled[key], key in at_limit)
        elif key in problem.names:
            common |= _from_covariance(
                entry, float(covariance[problem.names.index(key)][problem.names.index(key)]), key in at_limit
            )
        if key in other:
            common |= {"lower": other[key].low, "upper": other[key].high}
        results[key] = ParameterResult(**common)
    return results


def _from_profile(interval: Any, at_limit: bool) -> dict[str, Any]:
    return {
        "lower68": interval.low,
        "upper68": interval.high,
        "at_limit": at_limit or not (interval.low_reached and interval.high_reached),
        "errors": "profile",
    }


def _from_covariance(entry: Any, variance: float, at_limit: bool) -> dict[str, Any]:
    if at_limit or not (math.isfinite(variance) and variance > 0):
        return {"at_limit": at_limit}
    low, high = entry.value - math.sqrt(variance), entry.value + math.sqrt(variance)
    clipped = low < entry.low or high > entry.high
    return {
        "lower68": max(low, entry.low),
        "upper68": min(high, entry.high),
        "at_limit": clipped,
        "errors": "covariance",
    }


def statistic_result(problem: Problem, theta: Tensor) -> StatisticResult:
    """Value, degrees of freedom, the share of every observation, and the expected value if all are fitted with cstat."""
    with torch.no_grad():
        counts = problem.predict(theta)
        per_data = [
            {
                "name": d.name,
                "statistic": d.statistic.name,
                "value": float(d.statistic.value(m)),
                "bins": len(d.binned),
                "why": d.why,
            }
            for d, m in zip(problem.datasets, counts, strict=True)
        ]
    value = sum(part["value"] for part in per_data)
    pure = problem.statistic_name == "cstat"
    decided = problem.effective_parameters(theta)
    expected = expected_total(counts, free=decided) if pure else None
    return StatisticResult(
        name=problem.statistic_name,
        value=value,
        dof=problem.bins - round(decided),
        bins=problem.bins,
        why=" ".join(dict.fromkeys(part["why"] for part in per_data)),
        formula="; ".join(dict.fromkeys(d.statistic.formula for d in problem.datasets)),
        per_data=tuple(per_data),
        expected=expected.mean if expected else None,
        expected_sigma=expected.sigma if expected else None,
        expected_p=expected.p_value(value) if expected else None,
    )


def prior_result(problem: Problem, theta: Tensor) -> dict[str, Any] | None:
    """What the priors say of the best fit; None where there are none.

    Returns
    -------
    dict
        ``objective``, statistic - 2 ln prior, which was minimised; ``effective_parameters``, how many the data decide; ``latents``,
        for each learned component the squared distance of its coordinates from the middle of their prior N(0,1), their
        number, and the probability that a source of the trained population lies as far out.
    """
    learned = learned_leaves(problem.model)
    if not problem.priors and not learned:
        return None
    values = problem.parameters.with_vector(theta.tolist())
    latents = {}
    for leaf in learned:
        z = torch.tensor([values[leaf.keys[name]].value for name in leaf.component.latents], dtype=torch.float64)
        square = (z**2).sum()
        tail = torch.special.gammaincc(torch.tensor(0.5 * len(z), dtype=torch.float64), 0.5 * square)
        latents[leaf.label] = {"square": float(square), "dimension": len(z), "probability": float(tail)}
    with torch.no_grad():
        objective = float(problem.objective(theta))
    return {
        "objective": objective,
        "effective_parameters": problem.effective_parameters(theta),
        "latents": latents,
    }


#: A source whose latent coordinates lie farther out than all but this part of the trained population is called unlike it.
UNLIKELY = 1e-3


def latent_warnings(prior: Mapping[str, Any] | None) -> list[str]:
    """A sentence for every learned component whose coordinates lie far outside their prior."""
    return [
        f"{label}: the coordinates lie farther out (|z|^2 = {found['square']:.1f} for {found['dimension']}) than those of one in "
        f"{1.0 / max(found['probability'], 1e-12):.2g} sources that the weights were trained on: the source is unlike them"
        for label, found in (prior or {}).get("latents", {}).items()
        if found["probability"] < UNLIKELY
    ]


def flux_results(
    problem: Problem, theta: Tensor, covariance: Tensor, bands: Sequence[tuple[float, float]], redshift: float | None
) -> tuple[FluxResult, ...]:
    """Observed and unabsorbed flux of every band, and with a redshift the luminosity."""
    found = []
    for band in bands:
        outside = _outside(problem, band)
        for kind in ("observed", "unabsorbed"):
            value = flux_with_errors(problem, theta, covariance, band, unabsorbed=kind == "unabsorbed")
            found.append(FluxResult(band, kind, value[0], FLUX_UNIT, *_ends(problem, value), outside))
        if redshift is not None:
            value = luminosity_with_errors(problem, theta, covariance, band, redshift)
            seen = _outside(problem, (band[0] / (1.0 + redshift), band[1] / (1.0 + redshift)))
            found.append(FluxResult(band, "luminosity", value[0], LUMINOSITY_UNIT, *_ends(problem, value), seen))
    return tuple(found)


def fitted_band(problem: Problem) -> tuple[float, float]:
    """Lowest and highest fitted energy of all observations [keV]."""
    low = min(float(d.binned.energy_low.min()) for d in problem.datasets)
    return low, max(float(d.binned.energy_high.max()) for d in problem.datasets)


def _outside(problem: Problem, band: tuple[float, float]) -> bool:
    """Does the band reach beyond the fitted one by more than a few channels (3 %)?"""
    low, high = fitted_band(problem)
    return band[0] < 0.97 * low or band[1] > 1.03 * high


def _ends(problem: Problem, value: Sequence[float]) -> list[float | None]:
    """Both ends of an interval; None where there is none, and where nothing was free to give one."""
    return [end if problem.names and math.isfinite(end) else None for end in value[1:]]


def data_result(dataset: Dataset, file: str) -> DataResult:
    """One observation as it was fitted: counts, files with hashes, band, rule and grouping in force."""
    observation, binned = dataset.observation, dataset.binned
    spectrum, response = observation.spectrum, observation.response
    counts = float(binned.counts.sum())
    background = None if binned.background is None else float((binned.background * binned.ratio).sum())
    hashes: Mapping[str, str] = {
        **{b.path: b.sha256 for b in spectrum.backgrounds if b.path},
        **dict(getattr(response, "hashes", {})),
    }
    return DataResult(
        file=file,
        hash=spectrum.sha256,
        counts=counts,
        exposure=binned.exposure,
        net_counts=None if background is None else counts - background,
        background=", ".join(dict.fromkeys(b.path or "in the same file" for b in spectrum.backgrounds)) or None,
        arf=response.arf or None,
        rmf=response.rmf or None,
        hashes=dict(hashes),
        band=tuple(float(v) for v in spectrum.range_used),
        rule=observation.describe_range(),
        grouping=observation.describe_grouping().removeprefix("grouping: "),
        bins=len(binned),
        notes=tuple(dict.fromkeys((*binned.notes, *_unsaid(dataset)))),
        name=dataset.name,
        instrument=" ".join(str(spectrum.header[k]) for k in ("TELESCOP", "INSTRUME") if k in spectrum.header),
        target=str(spectrum.header.get("OBJECT", "")),
    )


def _unsaid(dataset: Dataset) -> list[str]:
    """Notes of the statistic that the reason for choosing it does not hold already."""
    return [note for note in dataset.statistic.notes if note.lower() not in dataset.why.lower()]


def whole_band_warning(observation: Observation) -> str | None:
    """A sentence where no range was chosen and the fit reaches far beyond the energies that the camera sees."""
    usable = usable_band(observation)
    if observation.spectrum.selections or usable is None:
        return None
    low, high = float(observation.binned.energy_low.min()), float(observation.binned.energy_high.max())
    if high < 1.2 * usable[1]:
        return None
    return (
        f"{observation.name}: no range was chosen, so all good channels are fitted, {low:.3g}-{high:.3g} keV, beyond the "
        f"{usable[0]:.2g}-{usable[1]:.2g} keV that hold counts and area: choose one with --notice"
    )


def limit_warnings(problem: Problem, theta: Tensor, at_limit: Sequence[str]) -> list[str]:
    """A sentence for every parameter that ended at a limit."""
    found = []
    for key in at_limit:
        entry, value = problem.parameters[key], float(theta[problem.names.index(key)])
        side = "lower" if abs(value - entry.low) <= abs(value - entry.high) else "upper"
        found.append(
            f"{key} ended at its {side} limit {value:g}: its value and the errors of the others depend on that limit"
        )
    return found


def start_warning(starts: int, agreeing: int) -> list[str]:
    """A sentence where few of the starting points led to the best fit."""
    if starts < 4 or agreeing >= max(2, starts // 4):
        return []
    word = "start" if agreeing == 1 else "starts"
    return [
        f"only {agreeing} {word} of {starts} came within 0.1 of the best statistic: there are other minima, try more --starts"
    ]
