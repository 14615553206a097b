"""The flow taken up into the decoder: a new branch learns from the coordinates a user sees what flow and branch together did.

Splines cost more than all the rest of a spectrum, at every evaluation for ever. So a new branch is trained, without noise as in stage
1, on sources whose coordinates the oracle and the inverse of the flow give, and on spectra of the composed decoder at coordinates
drawn from N(0,1), for what lies between sources. The templates go on learning. The prior of the coordinates stays what the flow made it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.decoder import build_decoder
from deepspec.learned.modules import load_decoder, load_oracle, make_weights
from deepspec.training.noise_free import NoiseFree, conditions, robust, shape_divergence
from deepspec.training.sources import SourceStream, held_out
from deepspec.training.stage import Stage, seeded

if TYPE_CHECKING:
    from deepspec.learned.checkpoint import Weights
    from deepspec.training.config import TrainConfig

REACH = 1.2
"""Spread of the coordinates drawn besides those of sources: a little beyond the prior, for its tails."""


class MergedDecoder(NoiseFree):
    """The decoder to be, and the loss at given coordinates."""

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss for spectra ``batch["shape"]`` at coordinates ``batch["u"]``, shape (batch, latent)."""
        misfit = self.misfit(self.decoder.log_density(batch["u"]), batch)
        return robust(misfit, self.settings.knee).mean(), {"misfit": misfit.detach().median()}


class MergeStage(Stage):
    """Flow and decoder become one decoder.

    Raises
    ------
    UserError
        There is no decoder with an oracle and a flow before it.
    """

    name = "merge"

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
        if previous is None or previous.oracle is None or previous.flow is None:
            raise UserError(
                "there are no decoder and prior to merge", remedy="run `deepspec train --stage prior` first"
            )
        self.oracle = load_oracle(previous, self.device).requires_grad_(False)
        self.teacher = load_decoder(previous, self.device).requires_grad_(False)
        self.table = self.teacher.table()
        torch.manual_seed(seed)
        decoder = build_decoder(replace(self.teacher.decoder.config, branch=tuple(self.settings.branch)))
        if hasattr(decoder, "trunk"):
            decoder.trunk.load_state_dict(self.teacher.decoder.trunk.state_dict())
        self.module = MergedDecoder(decoder, self.settings).to(self.device)
        half = max(self.settings.batch // 2, 1)
        self.sources = SourceStream(seed + 2, half, self.device, rank, world, **config.populations.stream())
        self.unseen = held_out(2048).shape.to(self.device)

    @torch.no_grad()
    def located(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Coordinates of known sources, shape (n, latent); `noise` scales the width of the oracle's answer."""
        mean, sd = self.oracle(batch["shape"], batch["log_counts"], batch["log_nH"], batch["absorbed"])
        return self.teacher.flow.inverse(mean + sd * noise)[0]

    @torch.no_grad()
    def batch(self, step: int) -> dict[str, Tensor]:
        generator = self.generator(step)
        shape, _ = self.sources.batch(step)
        drawn = REACH * torch.randn(
            self.settings.batch - len(shape), self.teacher.latent, generator=generator, device=self.device
        )
        found = conditions(torch.cat([shape, self.teacher(drawn, self.table)]), self.settings, generator)
        noise = torch.randn(len(shape), self.teacher.latent, generator=generator, device=self.device)
        known = {name: value[: len(shape)] for name, value in found.items() if value.ndim}
        return {**found, "u": torch.cat([self.located(known, noise), drawn])}

    @torch.no_grad()
    def validate(self, module: MergedDecoder) -> dict[str, float]:
        """As stage 1, for the merged decoder; then the flow and decoder that it replaces."""
        batch = conditions(self.unseen, self.settings, seeded(self.device, self.seed, 0, 10**9))
        batch["absorbed"].zero_()
        out = {}
        matrix = module.cameras[0]
        for counts in (1e4, 1e5):
            batch["log_counts"].fill_(torch.tensor(counts).log())
            u = self.located(batch, torch.zeros(self.teacher.latent, device=self.device))
            for name, found in (("", module.decoder(u)), ("before ", self.teacher(u, self.table))):
                excess = 2.0 * counts * shape_divergence(batch["shape"] @ matrix, found @ matrix)
                out[f"{name}excess {counts:.0e}"] = float(excess.median())
                out[f"{name}mean {counts:.0e}"] = float(excess.mean())
        return out

    def weights(self, module: MergedDecoder, card: dict[str, Any]) -> Weights:
        return make_weights(module.decoder, card=card)

    def close(self) -> None:
        self.sources.close()
