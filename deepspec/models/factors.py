"""Factors other than interstellar absorption: constant, edges, cut-offs, absorption lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deepspec.models.base import Grid, Multiplicative, Parameter
from deepspec.models.lines import NARROWEST, line_in_bin
from deepspec.models.redshift import REDSHIFT, RedshiftedFactor


class Constant(Multiplicative):
    """A factor that does not depend on energy, e.g. the calibration of one camera against another."""

    name = "constant"
    parameters = (Parameter("factor", 1.0, "", 0.0, 0.0, 1e10, 1e10, log=True),)
    source = "XSPEC manual, constant"

    def evaluate(self, grid: Grid, *, factor: Tensor) -> Tensor:
        return factor * grid.memo("ones", lambda: torch.ones_like(grid.low.detach()))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            value = self.evaluate(grid, factor=values["factor"])
            return value, torch.ones_like(value)[None]


def _mean_of_edges(at_edges: Tensor) -> Tensor:
    return 0.5 * (at_edges[..., 1:] + at_edges[..., :-1])


class Edge(Multiplicative):
    """Absorption edge.

    1 below edgeE and ``exp(-MaxTau (E / edgeE)^-3)`` above; the mean of the values at the two ends of a bin, and in the
    bin with the edge each side weighted by its width.
    """

    name = "edge"
    parameters = (
        Parameter("edgeE", 7.0, "keV", 0.0, 0.0, 100.0, 100.0),
        Parameter("MaxTau", 1.0, "", 0.0, 0.0, 5.0, 10.0),
    )
    source = "XSPEC manual, edge"

    def evaluate(self, grid: Grid, *, edgeE: Tensor, MaxTau: Tensor) -> Tensor:
        above = torch.maximum(grid.edges, edgeE)
        absorbed = torch.expm1(-MaxTau * (edgeE / above) ** 3)
        return 1.0 + _mean_of_edges(absorbed) * (above[..., 1:] - above[..., :-1]) / grid.width

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            energy, depth = values["edgeE"], values["MaxTau"]
            above = torch.maximum(grid.edges, energy)
            part = torch.diff(above) / grid.width
            ratio = (energy / above) ** 3
            absorbed = torch.expm1(-depth * ratio)
            mean = _mean_of_edges(absorbed)

            def by_energy() -> Tensor:
                """Above the edge its depth grows, and the part of its bin that is absorbed shrinks."""
                below = (grid.edges < energy).to(above.dtype)
                growth = (1.0 - below) * (absorbed + 1.0) * (-3.0 * depth) * energy.square() / above**3
                return _mean_of_edges(growth) * part + mean * torch.diff(below) / grid.width

            parts = {
                "edgeE": by_energy,
                "MaxTau": lambda: _mean_of_edges(-ratio * (absorbed + 1.0)) * part,
            }
            return 1.0 + mean * part, torch.stack([parts[name]() for name in wanted])


class ZEdge(RedshiftedFactor):
    """`Edge` at redshift z: edgeE in the frame of the absorber."""

    name = "zedge"
    parameters = (*Edge.parameters, REDSHIFT)
    source = "XSPEC manual, zedge"
    rest = Edge()


class ExponentialRollOff(Multiplicative):
    """Low-energy roll-off ``exp(-LowECut / E)``; the mean of the values at the two ends of a bin."""

    name = "expabs"
    parameters = (Parameter("LowECut", 2.0, "keV", 0.0, 0.0, 100.0, 200.0),)
    source = "XSPEC manual, expabs"

    def evaluate(self, grid: Grid, *, LowECut: Tensor) -> Tensor:
        return _mean_of_edges(torch.exp(-LowECut / grid.edges))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            factor = torch.exp(-values["LowECut"] / grid.edges)
            return _mean_of_edges(factor), -_mean_of_edges(factor / grid.edges)[None]


class HighEnergyCutoff(Multiplicative):
    """High-energy cut-off: 1 below cutoffE and ``exp((cutoffE - E) / foldE)`` above; mean of the two ends of a bin.

    As in XSPEC the exponent is at least 0.001 keV / foldE, also below cutoffE.
    """

    name = "highecut"
    parameters = (
        Parameter("cutoffE", 10.0, "keV", 1e-4, 0.01, 1e6, 1e6, log=True),
        Parameter("foldE", 15.0, "keV", 1e-4, 0.01, 1e6, 1e6, log=True),
    )
    source = "XSPEC manual, highecut; lower limit of the exponent measured"

    def evaluate(self, grid: Grid, *, cutoffE: Tensor, foldE: Tensor) -> Tensor:
        return _mean_of_edges(torch.exp(-(grid.edges - cutoffE).clamp(min=1e-3) / foldE))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            fold = values["foldE"]
            above = grid.edges - values["cutoffE"]
            beyond = above.clamp(min=1e-3)
            factor = torch.exp(-beyond / fold)
            parts = {
                "cutoffE": lambda: _mean_of_edges(torch.where(above > 1e-3, factor, 0.0)) / fold,
                "foldE": lambda: _mean_of_edges(factor * beyond) / fold.square(),
            }
            return _mean_of_edges(factor), torch.stack([parts[name]() for name in wanted])


class GaussianAbsorption(Multiplicative):
    """Absorption line of Gaussian optical depth.

    ``exp(-Strength / (Sigma sqrt(2 pi)) exp(-(E - LineE)^2 / (2 Sigma^2)))``, averaged over the bin. Sigma = 0 is a
    line spread evenly over its bin, as in XSPEC.
    """

    name = "gabs"
    parameters = (
        Parameter("LineE", 1.0, "keV", 0.0, 0.0, 1e6, 1e6),
        Parameter("Sigma", 0.01, "keV", 0.0, 0.0, 10.0, 20.0),
        Parameter("Strength", 1.0, "keV", 0.0, 0.0, 1e6, 1e6),
    )
    source = "XSPEC manual, gabs"
    reach = 9.0
    """Distance from the line, in Sigma, beyond which nothing is absorbed."""

    def evaluate(self, grid: Grid, *, LineE: Tensor, Sigma: Tensor, Strength: Tensor) -> Tensor:
        narrow = Sigma.detach() <= NARROWEST
        sigma = torch.where(narrow, 1.0, Sigma)
        low = ((grid.low - LineE) / sigma).clamp(-self.reach, self.reach)
        high = ((grid.high - LineE) / sigma).clamp(-self.reach, self.reach)
        depth = Strength / (math.sqrt(2.0 * math.pi) * sigma)
        length = high - low
        touched = (length.detach() > 0.0).reshape(-1, len(grid)).any(0).nonzero()[:, 0]
        part = self._deficit(low[..., touched], length[..., touched], depth) * (sigma / grid.width[..., touched])
        value = torch.zeros_like(length).index_copy(-1, touched, part)
        if narrow.any():
            in_bin = torch.expm1(-Strength * line_in_bin(grid, LineE).to(value.dtype) / grid.width)
            value = torch.where(narrow, in_bin, value)
        return 1.0 + value

    @staticmethod
    def _deficit(start: Tensor, length: Tensor, depth: Tensor) -> Tensor:
        """Integral of the factor less one, in units of Sigma, by Gauss quadrature as fine as the bins are coarse."""
        longest = float(length.detach().max()) if length.numel() else 0.0
        count = 8 if longest < 0.5 else 24 if longest < 2.0 else 64
        total = torch.zeros_like(length)
        for node, weight in zip(*np.polynomial.legendre.leggauss(count), strict=True):
            place = start + (0.5 * (node + 1.0)) * length
            total = total + (0.5 * weight) * torch.expm1(-depth * torch.exp(-0.5 * place.square()))
        return total * length
