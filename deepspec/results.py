"""What a fit returns: frozen, complete, and the same whether shown, saved or read back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deepspec.errors import UserError

#: Version of the layout of result.json.
FORMAT = 1


@dataclass(frozen=True)
class ParameterResult:
    """One parameter of a fitted model.

    `lower68` and `upper68` are None for frozen and linked parameters and where no interval exists; `at_limit` says that the
    value or an end of the interval is a limit, so that end is none of the data's making. `errors` is "covariance" or "profile".
    `low` and `high` are the limits in force; `lower` and `upper` the profile interval at the rise ``--delta`` where that is not 1.
    """

    value: float
    unit: str
    frozen: bool
    lower68: float | None = None
    upper68: float | None = None
    link: str | None = None
    at_limit: bool = False
    errors: str | None = None
    prior: str | None = None
    low: float | None = None
    high: float | None = None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class StatisticResult:
    """The statistic at the best fit; `why` says how it was chosen, `expected` is what a model that is right would give (C-stat only;
    Kaastra 2017, lowered by the fitted parameters) and `expected_p` the probability of a value at least as large."""

    name: str
    value: float
    dof: int
    bins: int
    why: str = ""
    formula: str = ""
    per_data: tuple[dict, ...] = ()
    expected: float | None = None
    expected_sigma: float | None = None
    expected_p: float | None = None


@dataclass(frozen=True)
class FluxResult:
    """A band flux [erg cm^-2 s^-1] or luminosity [erg s^-1]; `kind` is "observed", "unabsorbed" or "luminosity"."""

    band: tuple[float, float]
    kind: str
    value: float
    unit: str
    lower68: float | None
    upper68: float | None
    outside_data: bool = False


@dataclass(frozen=True)
class DataResult:
    """One observation as it was fitted."""

    file: str
    hash: str
    counts: float
    exposure: float
    net_counts: float | None = None
    background: str | None = None
    arf: str | None = None
    rmf: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    band: tuple[float, float] | None = None
    rule: str = ""
    grouping: str = ""
    bins: int = 0
    notes: tuple[str, ...] = ()
    name: str = ""
    instrument: str = ""
    target: str = ""


@dataclass(frozen=True)
class FitResult:
    """A fit: everything that `deepspec fit` prints and saves.

    Attributes
    ----------
    model : str
    converged : bool
    message : str
    statistic : StatisticResult
    parameters : dict of str to ParameterResult
    fluxes : tuple of FluxResult
    data : tuple of DataResult
    engine : dict with name, starts, steps, evaluations, seconds, agreeing
    goodness : dict or None
    covariance : dict with `names` and `matrix`, or None
    prior : dict with `objective`, `effective_parameters` and `latents` where parameters have priors, else None
    grids : steppar results
    warnings : tuple of str
    settings : dict; choices that are no parameters, by component
    config : dict; what repeats this fit
    provenance : dict; command, versions, seed, time
    """

    model: str
    converged: bool
    message: str
    statistic: StatisticResult
    parameters: dict[str, ParameterResult]
    fluxes: tuple[FluxResult, ...]
    data: tuple[DataResult, ...]
    engine: dict[str, Any]
    goodness: dict[str, Any] | None = None
    covariance: dict[str, Any] | None = None
    prior: dict[str, Any] | None = None
    grids: tuple[dict, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not a number becomes null."""
        return _plain({"format": FORMAT, **asdict(self)})

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write result.json; an old one is replaced only when the new one is complete."""
        from deepspec.files import write_beside

        with write_beside(path) as temporary:
            Path(temporary).write_text(self.to_json() + "\n", encoding="utf-8")


def load_result(path: str | Path) -> FitResult:
    """A saved result.

    Raises
    ------
    UserError
        Not a result of this program, or of a newer version.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", path, "give the result.json of an earlier fit") from None
    except (OSError, ValueError) as error:
        raise UserError("this is no readable JSON file", path, "give the result.json of an earlier fit") from error
    if not isinstance(found, dict) or "format" not in found or "config" not in found:
        raise UserError("this is not a result of deepspec", path, "give the result.json of an earlier fit")
    if found["format"] > FORMAT:
        raise UserError("this result was written by a newer deepspec", path, "update deepspec")
    try:
        return _rebuild(found)
    except (KeyError, TypeError) as error:
        raise UserError(f"this result is damaged ({error})", path, "make it again") from error


def _rebuild(found: dict[str, Any]) -> FitResult:
    given = {k: v for k, v in found.items() if k != "format"}
    given["statistic"] = StatisticResult(
        **{**given["statistic"], "per_data": tuple(given["statistic"].get("per_data", ()))}
    )
    given["parameters"] = {k: ParameterResult(**v) for k, v in given["parameters"].items()}
    given["fluxes"] = tuple(FluxResult(**{**f, "band": tuple(f["band"])}) for f in given["fluxes"])
    given["data"] = tuple(
        DataResult(**{**d, "band": tuple(d["band"]) if d.get("band") else None, "notes": tuple(d.get("notes", ()))})
        for d in given["data"]
    )
    for name in ("warnings", "grids"):
        given[name] = tuple(given.get(name, ()))
    return FitResult(**given)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)
