"""Factors other than interstellar absorption: constant, edges, cut-offs, absorption lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepspec.models.base import Grid, Multiplicative, Parameter


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
