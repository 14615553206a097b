"""What a class of sources is: a name, a share, a prior for every parameter, and a spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deepspec.learned.grids import COUNT
from deepspec.training.populations.bench import EXTENDED, Bench, bench
from deepspec.training.populations.priors import Prior

FLOOR = 1e-7
"""Added to ``E N(E)`` relative to its largest value in 0.3-10 keV.

Logarithms stay learnable (super-soft sources have no photons above 2 keV, absorbed ones none below), and a ratio of 1e7
within a spectrum lies beyond what 1e5 counts can tell.
"""


class Population:
    """One class of sources. A subclass is a docstring, the four attributes and `spectrum`.

    Attributes
    ----------
    name : str
    share : float
        Of all sources, unless a user says otherwise.
    why : str
        What in nature the parts stand for; shown in the documentation.
    priors : mapping of name to Prior
        Independent of each other; what depends on others is a ratio here and is multiplied in `spectrum`. One named ``z`` makes
        the source distant: its spectrum is built in its own frame and shifted.
    """

    name: ClassVar[str]
    share: ClassVar[float]
    why: ClassVar[str]
    priors: ClassVar[Mapping[str, Prior]]

    def spectrum(self, on: Bench, **parameters: Tensor) -> Tensor:
        """Photons per unit ln E in the frame of the source, (m, on.count), any scale per source."""
        raise NotImplementedError

    def parameters(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw `n` sets: shape (n,), or (n, size) for a vector."""
        widths = [prior.size for prior in self.priors.values()]
        uniform = torch.rand((n, sum(widths)), generator=generator, device=generator.device)
        columns = uniform.split(widths, -1)
        return {
            name: prior.values(column if prior.size > 1 else column[:, 0].contiguous())
            for (name, prior), column in zip(self.priors.items(), columns, strict=True)
        }

    def draw(
        self, n: int, generator: torch.Generator, device: str | torch.device = "cpu"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Spectra ``dN/dlnE`` seen by us, (n, `COUNT`), and the parameters behind them."""
        parameters = {name: value.to(device) for name, value in self.parameters(n, generator).items()}
        distant = "z" in self.priors
        on = bench(EXTENDED if distant else COUNT, str(device))
        spectrum = self.spectrum(on, **{name: value for name, value in parameters.items() if name != "z"})
        return (on.redshifted(spectrum, parameters["z"]) if distant else spectrum), parameters


@dataclass(frozen=True)
class Sources:
    """What a draw returns.

    Attributes
    ----------
    shape : Tensor, shape (n, 600), float32
        Photons cm^-2 s^-1 per bin of `grids.EDGES`, unabsorbed by the foreground, unit energy flux (1e-12 erg cm^-2 s^-1) in 0.3-10 keV.
    label : Tensor, shape (n,), int64
        Index into `CLASS_NAMES`.
    parameters : dict of class name to dict of parameter name to Tensor
        Rows are the sources of that class in the order in which they appear in `shape`.
    """

    shape: Tensor
    label: Tensor
    parameters: dict[str, dict[str, Tensor]]

    def __len__(self) -> int:
        return len(self.label)
