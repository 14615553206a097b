"""Prior densities of parameters, written as text: ``normal(1.8,0.2)``, ``uniform(0,3)``, ``loguniform(1e-3,10)``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
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

    @property
    def normal(self) -> tuple[float, float] | None:
        """Mean and sigma of a normal prior without limits, None for any other: such priors can be evaluated together."""
        given = self.distribution
        if type(given) is not torch.distributions.Normal or math.isfinite(self.low) or math.isfinite(self.high):
            return None
        return float(given.loc), float(given.scale)

    def _inside(self) -> float:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return 0.5 * (self.low + self.high)
        return self.low + 1.0 if math.isfinite(self.low) else 0.0


class JointPrior:
    """The priors of a vector of parameters as one density; parameters without one are flat.

    Parameters
    ----------
    names : sequence of str
        The parameters, in the order of the vectors.
    priors : mapping of str to Prior
        By name; those of other names have no say.
    """

    def __init__(self, names: Sequence[str], priors: Mapping[str, Prior]):
        self.names = tuple(names)
        known = {key: prior for key, prior in priors.items() if key in self.names}
        # Normal ones, of which a learned component has a dozen, are evaluated together.
        normal = {key: prior.normal for key, prior in known.items() if prior.normal is not None}
        self._columns = [self.names.index(key) for key in normal]
        self._mean, self._sigma = torch.tensor(list(normal.values()), dtype=torch.float64).reshape(-1, 2).unbind(-1)
        self._offset = float((torch.log(self._sigma) + 0.5 * math.log(2.0 * math.pi)).sum())
        self._others = [(self.names.index(key), prior) for key, prior in known.items() if key not in normal]

    def log_prob(self, theta: Tensor) -> Tensor:
        """ln density, shape (...,), of vectors (..., P)."""
        deviation = (theta[..., self._columns] - self._mean) / self._sigma
        total = -0.5 * (deviation**2).sum(-1) - self._offset
        for column, prior in self._others:
            total = total + prior.log_prob(theta[..., column])
        return total

    def terms(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First and positive second derivative of -2 ln density (B, P), and its value (B,), at vectors (B, P)."""
        first, second = torch.zeros_like(theta), torch.zeros_like(theta)
        first[:, self._columns] = 2.0 * (theta[:, self._columns] - self._mean) / self._sigma**2
        second[:, self._columns] = (2.0 / self._sigma**2).expand(len(theta), -1)
        for column, prior in self._others:
            x = theta[:, column].detach().clone().requires_grad_()
            with torch.enable_grad():
                # a flat density does not depend on x, which autograd would refuse
                value = -2.0 * prior.log_prob(x) + 0.0 * x
                (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
                bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(x)
            first[:, column], second[:, column] = slope.detach(), bend.clamp(min=0.0)
        return first, second, -2.0 * self.log_prob(theta).detach()


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
