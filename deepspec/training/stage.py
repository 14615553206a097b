"""What a stage of training is: a module, its batches, its validation, and the weights it leaves behind.

The loop (`deepspec.training.loop`) knows nothing else of a stage, and a stage nothing of the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from deepspec.learned.checkpoint import Weights
    from deepspec.training.config import TrainConfig


class Stage(ABC):
    """One stage: the decoder, the prior, the encoder, or everything jointly.

    Parameters
    ----------
    config : TrainConfig
        All sections; the stage's own is ``config.stage[name]``.
    seed : int
    rank, world : int
        Number of this process and of all processes.
    device : str or torch.device
    previous : Weights, optional
        What the stage before this one left behind.

    Notes
    -----
    A run that is cut and resumed repeats its losses bit for bit because every step is a pure function of the weights and of
    (seed, rank, step). So random numbers belong to `batch`, drawn from `generator`; where `module` must draw some itself, it
    uses torch's global generator, which the loop seeds before every step.
    """

    name: ClassVar[str]

    def __init__(
        self,
        config: TrainConfig,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: str | torch.device = "cpu",
        previous: Weights | None = None,
    ):
        self.config, self.seed, self.rank, self.world = config, int(seed), int(rank), int(world)
        self.device, self.previous = torch.device(device), previous
        self.settings = config.stage[self.name]

    #: All that is trained. ``module(batch, step)`` returns the loss (a scalar) and scalars to log by name.
    module: nn.Module

    @abstractmethod
    def batch(self, step: int) -> dict[str, Tensor]:
        """The data of step `step` (from 0), on the device: a pure function of (seed, rank, step)."""

    @abstractmethod
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Figures of `module` (averaged weights, in evaluation mode) on fixed data; the first is shown as the run goes on."""

    @abstractmethod
    def weights(self, module: nn.Module, card: dict[str, Any]) -> Weights:
        """What is written: the networks in `module` and those of earlier stages, and the card."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, each ``{"params": [...], "scale": multiplier of the rate}``."""
        return [{"params": [p for p in self.module.parameters() if p.requires_grad], "scale": 1.0}]

    def generator(self, step: int, *purpose: int) -> torch.Generator:
        """Random numbers of one step; `purpose` (small integers) tells apart generators of the same step."""
        return seeded(self.device, self.seed, self.rank, step, *purpose)

    def close(self) -> None:  # noqa: B027 - most stages have nothing to stop
        """Stop threads, if the stage has any."""


def seeded(device: str | torch.device, *numbers: int) -> torch.Generator:
    """A generator on `device` that depends on all `numbers` (non-negative), mixed so that neighbours share nothing."""
    return torch.Generator(device=device).manual_seed(mixed(*numbers))


def mixed(*numbers: int) -> int:
    """One 63-bit seed from several non-negative integers."""
    # with their number in front, because numpy takes (1,) and (1, 0) for the same
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))
