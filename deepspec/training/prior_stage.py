"""Stage 2: the prior, a flow fitted to where sources lie in the decoder's latent space.

The coordinates that the decoder learned do not have the prior N(0,1): the full KL weight acts late, and a sum of Gaussians of known
sources is no Gaussian. The flow carries N(0,1) to where the oracle puts simulated sources; composed with the decoder it gives
coordinates whose prior is N(0,1) as users take it to be. Samples are drawn anew at every step, so that there is nothing to overfit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepspec.errors import UserError
from deepspec.learned.flow import Flow, build_flow
from deepspec.learned.modules import checked, load_oracle, section
from deepspec.training.foreground import draw_log_nH
from deepspec.training.sources import SourceStream, held_out
from deepspec.training.stage import Stage

if TYPE_CHECKING:
    from deepspec.learned.checkpoint import Weights
    from deepspec.training.config import TrainConfig

_FIRST = 8192
"""Sources whose mean and covariance the flow starts from."""


class NegativeLogDensity(nn.Module):
    """The flow, and the mean of -ln density of latent points."""

    def __init__(self, flow: Flow):
        super().__init__()
        self.flow = flow

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss for ``batch["z"]``, shape (batch, latent)."""
        return -self.flow.log_prob(batch["z"]).mean(), {}


class PriorStage(Stage):
    """Stage 2 of `deepspec train`.

    Raises
    ------
    UserError
        There is no decoder with an oracle before it.
    """

    name = "prior"

    def __init__(
        self,
        config: TrainConfig,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        device="cpu",
        previous: Weights | None = None,
    ):
        super().__init__(config, seed, rank, world, device, previous)
        if previous is None or previous.oracle is None:
            raise UserError(
                "there is no trained decoder to fit a prior to", remedy="run `deepspec train --stage decoder` first"
            )
        self.oracle = load_oracle(previous).to(self.device).eval().requires_grad_(False)
        self.sources = SourceStream(
            seed + 1, self.settings.batch, self.device, rank, world, **config.populations.stream()
        )
        torch.manual_seed(seed)
        flow = build_flow(replace(config.prior, latent=self.oracle.config.latent)).to(self.device)
        flow.fit_gaussian(self.located(held_out(_FIRST, seed=2).shape.to(self.device), self.generator(0, 1)))
        self.module = NegativeLogDensity(flow)
        self.unseen = self.located(held_out(4096).shape.to(self.device), self.generator(0, 2))

    @torch.no_grad()
    def located(self, shape: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of the oracle's answer for known spectra, shape (n, latent)."""
        low, high = (math.log(x) for x in self.settings.counts)
        count, device = len(shape), shape.device
        log_counts = low + (high - low) * torch.rand(count, generator=generator, device=device)
        log_nH = draw_log_nH(count, generator).to(shape)
        mean, sd = self.oracle(shape, log_counts, log_nH, torch.zeros_like(log_counts))
        return mean + sd * torch.randn(mean.shape, generator=generator, device=device)

    def batch(self, step: int) -> dict[str, Tensor]:
        return {"z": self.located(self.sources.batch(step)[0], self.generator(step))}

    @torch.no_grad()
    def validate(self, module: NegativeLogDensity) -> dict[str, float]:
        """-ln density of unseen sources, what N(0,1) gives them, and how many lie beyond the 99 % point of the prior."""
        u, log_slope = module.flow.inverse(self.unseen)
        square, normal = (u**2).sum(-1), 0.5 * (self.unseen**2 + math.log(2 * math.pi)).sum(-1)
        density = log_slope - 0.5 * (square + u.shape[-1] * math.log(2 * math.pi))
        beyond = square > _chi2_point(u.shape[-1])
        return {
            "density": -float(density.mean()),
            "normal": float(normal.mean()),
            "beyond": float(beyond.float().mean()),
            "widest": float(u.std(0).max()),
            "narrowest": float(u.std(0).min()),
        }

    def weights(self, module: NegativeLogDensity, card: dict[str, Any]) -> Weights:
        return checked(replace(self.previous, flow=section(module.flow), card=card))

    def close(self) -> None:
        self.sources.close()


def _chi2_point(degrees: int, level: float = 0.99) -> float:
    from scipy.stats import chi2

    return float(chi2.ppf(level, degrees))
