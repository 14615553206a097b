"""A folded response as a few dense blocks: a photon reaches only channels near and below its energy."""

from __future__ import annotations

import torch
from torch import Tensor

#: Blocks into which a matrix is cut, and the share of its elements they may hold before one block is quicker.
BLOCKS = 4
WORTHWHILE = 0.6


class Folding:
    """Photon flux per energy bin to counts per fitted bin, and weights of the fitted bins back to energies.

    Parameters
    ----------
    matrix : Tensor, shape (n_energy, n_bin) [cm2 s]
    """

    def __init__(self, matrix: Tensor):
        self.matrix = matrix
        self._forth, self._back = _blocks(matrix), _blocks(matrix.T)

    def __repr__(self) -> str:
        return f"<Folding {tuple(self.matrix.shape)} in {len(self._forth)} blocks>"

    def counts(self, flux: Tensor) -> Tensor:
        """Expected counts, shape (..., n_bin), of photon fluxes of shape (..., n_energy)."""
        return _product(flux, self._forth)

    def back(self, weights: Tensor) -> Tensor:
        """The transpose: ``weights @ matrix.T``, shape (..., n_energy), of weights of shape (..., n_bin)."""
        return _product(weights, self._back)


def _blocks(matrix: Tensor) -> list[tuple[slice, Tensor]]:
    """Groups of neighbouring columns, each with the rows between its first and last element that is not zero."""
    columns = torch.tensor_split(torch.arange(matrix.shape[1]), BLOCKS)
    found = []
    for group in columns:
        part = matrix[:, group]
        rows = torch.nonzero((part != 0).any(1)).squeeze(-1)
        if len(rows):
            reached = slice(int(rows[0]), int(rows[-1]) + 1)
            found.append((reached, part[reached].contiguous()))
        else:
            found.append((slice(0, 0), part[:0]))
    if sum(block.numel() for _, block in found) > WORTHWHILE * matrix.numel():
        return [(slice(0, len(matrix)), matrix.contiguous())]
    return found


def _product(values: Tensor, blocks: list[tuple[slice, Tensor]]) -> Tensor:
    if len(blocks) == 1:
        return values @ blocks[0][1]
    return torch.cat([values[..., reached] @ block for reached, block in blocks], dim=-1)
