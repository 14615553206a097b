"""A stream of simulated sources that never repeats and can be entered anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.grids import COUNT
from deepspec.training.populations import CLASS_NAMES, Sources, class_shares, draw

TRAINING, PICKING, HELD_OUT = 0, 1, 2
"""Kinds of random numbers; each has seeds that no other kind can reach."""


def generator_for(kind: int, seed: int, *place: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments (non-negative integers)."""
    state = np.random.SeedSequence([kind, seed, *place]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class SourceStream:
    """Batches of sources from a pool that is renewed block by block.

    Block k is a function of (seed, rank, k). At any step the pool holds the newest `blocks` of them, and a batch is picked from
    the pool at random; a new block enters as often as keeps each source in `reuse` batches on average. The next block is drawn
    by a thread while the present ones are used.

    Parameters
    ----------
    seed : int
    batch : int
        Sources per batch.
    device : str or torch.device
    rank, world : int
        This process and the number of processes; each has blocks of its own.
    block, blocks : int
        Sources per block, blocks in the pool: 12 of 8192 take 236 MB.
    reuse : float
        Mean number of batches that see a source.
    shares : mapping of class name to number, optional
        As `populations.draw`.

    Raises
    ------
    UserError
        A size below 1, a negative seed, an unknown class.
    """

    def __init__(
        self,
        seed: int,
        batch: int,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
        block: int = 8192,
        blocks: int = 12,
        reuse: float = 4,
        shares: Mapping[str, float] | None = None,
    ):
        for name, value in {"batch": batch, "block": block, "blocks": blocks, "reuse": reuse, "world": world}.items():
            if value < 1:
                raise UserError(f"{name} of the simulated sources is {value}", remedy="give 1 or more")
        if seed < 0 or not 0 <= rank < world:
            raise UserError(f"seed {seed}, process {rank} of {world}", remedy="give a seed of 0 or more")
        class_shares(shares)
        self.seed, self.batch_size, self.device, self.rank = int(seed), int(batch), device, int(rank)
        self.block, self.blocks, self.reuse, self.shares = int(block), int(blocks), reuse, shares
        self._shape = torch.empty((self.blocks * self.block, COUNT), device=device)
        self._label = torch.empty(self.blocks * self.block, dtype=torch.int64, device=device)
        self._held: list[int | None] = [None] * self.blocks
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sources")
        self._ahead: tuple[int, Future] | None = None

    def newest(self, step: int) -> int:
        """Index of the newest block in the pool at a step; the pool starts with two blocks."""
        return min(1, self.blocks - 1) + int(step * self.batch_size / (self.block * self.reuse))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step, a function of (seed, rank, step) alone.

        Parameters
        ----------
        step : int
            From 0; any order, though drawing is ahead of need only for rising steps.

        Returns
        -------
        shape : Tensor, shape (batch, 600), float32
        label : Tensor, shape (batch,), int64
        """
        newest = self.newest(step)
        oldest = max(0, newest - self.blocks + 1)
        for index in range(oldest, newest + 1):
            self._ensure(index)
        self._draw_ahead(newest + 1)
        pick = generator_for(PICKING, self.seed, self.rank, step)
        chosen = torch.randint((newest - oldest + 1) * self.block, (self.batch_size,), generator=pick)
        # block k lies at place k modulo the number of blocks
        chosen = ((chosen + oldest * self.block) % len(self._label)).to(self.device)
        return self._shape[chosen], self._label[chosen]

    def close(self) -> None:
        """Stop the thread; a later batch starts it anew."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._ahead = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sources")

    def _block(self, index: int) -> Sources:
        generator = generator_for(TRAINING, self.seed, self.rank, index)
        with torch.no_grad():
            return draw(self.block, generator, self.device, self.shares)

    def _ensure(self, index: int) -> None:
        place = index % self.blocks
        if self._held[place] == index:
            return
        if self._ahead is not None and self._ahead[0] == index:
            sources = self._ahead[1].result()
            self._ahead = None
        else:
            sources = self._block(index)
        rows = slice(place * self.block, (place + 1) * self.block)
        self._shape[rows], self._label[rows] = sources.shape, sources.label
        self._held[place] = index

    def _draw_ahead(self, index: int) -> None:
        if self._ahead is None or self._ahead[0] != index:
            self._ahead = (index, self._worker.submit(self._block, index))


def held_out(
    n: int, seed: int = 0, device: str | torch.device = "cpu", shares: Mapping[str, float] | None = None
) -> Sources:
    """A fixed set of sources that no stream, of any seed, ever draws from the same random numbers."""
    with torch.no_grad():
        return draw(n, generator_for(HELD_OUT, seed), device, shares)


__all__ = ["CLASS_NAMES", "SourceStream", "Sources", "generator_for", "held_out"]
