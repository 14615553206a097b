"""Where the parameters of a class of sources lie: each prior turns uniform random numbers into values within a stated range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """Base of the four: a value between `low` and `high`; `size` above 1 asks for a vector of independent ones."""

    low: float
    high: float
    size: int = 1

    def values(self, uniform: Tensor) -> Tensor:
        """From uniform numbers in [0, 1), any shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Prior):
    """Flat between `low` and `high`."""

    def values(self, uniform: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * uniform

    def __str__(self) -> str:
        return f"U {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class LogUniform(Prior):
    """Flat in the logarithm between `low` and `high`."""

    def values(self, uniform: Tensor) -> Tensor:
        return torch.exp(math.log(self.low) + math.log(self.high / self.low) * uniform).clamp(self.low, self.high)

    def __str__(self) -> str:
        return f"LU {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Normal(Prior):
    """Normal with `mean` and `deviation`, cut at `low` and `high`."""

    mean: float = 0.0
    deviation: float = 1.0

    def values(self, uniform: Tensor) -> Tensor:
        edges = [0.5 * (1 + math.erf((x - self.mean) / self.deviation / math.sqrt(2))) for x in (self.low, self.high)]
        level = (edges[0] + (edges[1] - edges[0]) * uniform).clamp(1e-6, 1 - 1e-6)
        return (self.mean + self.deviation * math.sqrt(2) * torch.erfinv(2 * level - 1)).clamp(self.low, self.high)

    def __str__(self) -> str:
        return f"N({self.mean:g}, {self.deviation:g}) in {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Chance(Prior):
    """1 with probability `share`, else 0: whether a part is there."""

    share: float = 0.5

    def values(self, uniform: Tensor) -> Tensor:
        return (uniform < self.share).to(uniform.dtype)

    def __str__(self) -> str:
        return f"present in {100 * self.share:g} %"


def chance(share: float) -> Chance:
    """A part that is there in this share of the sources."""
    return Chance(0.0, 1.0, 1, share)


def normal(mean: float, deviation: float, low: float, high: float, size: int = 1) -> Normal:
    """A cut normal, arguments in the order one says them."""
    return Normal(low, high, size, mean, deviation)
