"""Prior densities of parameters, written as text: ``normal(1.8,0.2)``, ``uniform(0,3)``, ``loguniform(1e-3,10)``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.errors import UserError

_FORM = re.compile(r"^\s*([a-z0-9]+)\s*\(\s*([^,()]+)\s*,\s*([^,()]+)\s*\)\s*$")


@dataclass(frozen=True)
class Prior:
    """One prior: its text and a torch distribution.

    Attributes
    ----------
    text : str
    low, high : float
        Support; a fit keeps the parameter inside it.
    """

    text: str
    distribution: torch.distributions.Distribution
    low: float = -math.inf
    high: float = math.inf

    def log_prob(self, value: Tensor) -> Tensor:
        """ln of the density at `value`, any shape; minus infinity outside the support."""
        inside = (value >= self.low) & (value <= self.high)
        safe = torch.where(inside, value, value.new_tensor(self._inside()))
        return torch.where(inside, self.distribution.log_prob(safe), value.new_tensor(-math.inf))

    def _inside(self) -> float:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return 0.5 * (self.low + self.high)
        return self.low + 1.0 if math.isfinite(self.low) else 0.0


class _LogUniform(torch.distributions.Distribution):
    """Flat in the logarithm between two positive limits."""

    arg_constraints = {}

    def __init__(self, low: float, high: float):
        self._log_width = math.log(high / low)
        super().__init__(validate_args=False)

    def log_prob(self, value):
        return -torch.log(value) - math.log(self._log_width)


def parse_prior(text: str) -> Prior:
    """The prior that `text` describes.

    Parameters
    ----------
    text : str
        ``normal(mean,sigma)``, ``lognormal(median,sigma)`` with sigma in ln, ``log10normal(mean,sigma)`` of log10,
        ``uniform(low,high)``, ``loguniform(low,high)``.

    Raises
    ------
    UserError
        Unknown form or impossible numbers.
    """
    match = _FORM.match(text.lower())
    forms = "normal(mean,sigma), lognormal(median,sigma), log10normal(mean,sigma), uniform(low,high) or loguniform(low,high)"
    if not match:
        raise UserError("this is no prior", f"prior '{text}'", f"write {forms}")
    kind = match[1]
    try:
        a, b = float(match[2]), float(match[3])
    except ValueError:
        raise UserError("the two arguments must be numbers", f"prior '{text}'", f"write {forms}") from None
    if not (math.isfinite(a) and math.isfinite(b)):
        raise UserError("the two arguments must be finite", f"prior '{text}'")
    if kind in ("normal", "lognormal", "log10normal") and b <= 0:
        raise UserError("sigma must be positive", f"prior '{text}'")
    if kind in ("uniform", "loguniform") and not a < b:
        raise UserError("the lower limit must be below the upper", f"prior '{text}'")
    if (kind == "loguniform" or kind == "lognormal") and a <= 0:
        raise UserError("the first argument must be positive", f"prior '{text}'")
    if kind == "normal":
        return Prior(text, torch.distributions.Normal(_number(a), _number(b)))
    if kind == "lognormal":
        return Prior(text, torch.distributions.LogNormal(_number(math.log(a)), _number(b)), low=1e-300)
    if kind == "log10normal":
        scale = math.log(10.0)
        return Prior(text, torch.distributions.LogNormal(_number(a * scale), _number(b * scale)), low=1e-300)
    if kind == "uniform":
        return Prior(text, torch.distributions.Uniform(_number(a), _number(b), validate_args=False), a, b)
    if kind == "loguniform":
        return Prior(text, _LogUniform(a, b), a, b)
    raise UserError(f"unknown prior '{kind}'", f"prior '{text}'", f"write {forms}")


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
