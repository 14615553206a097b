"""Stage 1: the decoder, on noise-free spectra.

A simulated source is known exactly, so the decoder needs no Poisson noise to learn what spectra look like. Per source and step a
number of reference counts N and a foreground are drawn; the loss is what C-stat would on average lose at N counts, between the
shapes of the true and of the predicted counts, through a camera and (a tenth) through an ideal detector, plus the KL divergence of
the oracle's answer from N(0,1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepspec.learned.decoder import Decoder, build_decoder
from deepspec.learned.modules import make_weights
from deepspec.learned.oracle import Oracle, build_oracle
from deepspec.training.noise_free import NoiseFree, conditions, robust, shape_divergence
from deepspec.training.sources import SourceStream, held_out
from deepspec.training.stage import Stage, seeded

if TYPE_CHECKING:
    from deepspec.learned.checkpoint import Weights
    from deepspec.training.config import TrainConfig
    from deepspec.training.sections import DecoderStageConfig


class DecoderAndOracle(NoiseFree):
    """All that stage 1 trains, and its loss."""

    def __init__(self, decoder: Decoder, oracle: Oracle, settings: DecoderStageConfig):
        super().__init__(decoder, settings)
        self.oracle = oracle

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and what is logged.

        Parameters
        ----------
        batch : dict
            That of `NoiseFree.misfit`, and noise (batch, latent).
        step : int
            Decides the weight of the divergence from N(0,1).
        """
        mean, sd = self.oracle(batch["shape"], batch["log_counts"], batch["log_nH"], batch["absorbed"])
        misfit = self.misfit(self.decoder.log_density(mean + sd * batch["noise"]), batch)
        latent = 0.5 * (mean**2 + sd**2 - 1.0).sum(-1) - torch.log(sd).sum(-1)
        loss = (robust(misfit, self.settings.knee) + self.settings.beta_at(step) * latent).mean()
        return loss, {"misfit": misfit.detach().median(), "latent": latent.detach().mean()}


class DecoderStage(Stage):
    """Stage 1 of `deepspec train`."""

    name = "decoder"

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
        torch.manual_seed(seed)
        self.module = DecoderAndOracle(build_decoder(config.decoder), build_oracle(config.oracle), self.settings).to(
            self.device
        )
        self.sources = SourceStream(seed, self.settings.batch, self.device, rank, world, **config.populations.stream())

        self.unseen = held_out(2048).shape.to(self.device)

    def batch(self, step: int) -> dict[str, Tensor]:
        shape, _ = self.sources.batch(step)
        return self.conditions(shape, self.generator(step))

    def conditions(self, shape: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Reference counts, foreground, camera and the oracle's noise for known spectra."""
        found = conditions(shape, self.settings, generator)
        size = len(shape), self.module.decoder.latent
        return {**found, "noise": torch.randn(*size, generator=generator, device=shape.device)}

    @torch.no_grad()
    def validate(self, module: DecoderAndOracle) -> dict[str, float]:
        """Twice the loss of the likelihood at the oracle's mean, for sources never seen: about C-stat above the truth."""
        batch = self.conditions(self.unseen, seeded(self.device, self.seed, 0, 10**9))
        batch["absorbed"].zero_()
        out = {}
        for counts in (1e4, 1e5):
            batch["log_counts"] = torch.full_like(batch["log_counts"], math.log(counts))
            mean, _ = module.oracle(batch["shape"], batch["log_counts"], batch["log_nH"], batch["absorbed"])
            predicted, matrix = module.decoder(mean), module.cameras[0]
            excess = 2.0 * counts * shape_divergence(batch["shape"] @ matrix, predicted @ matrix)
            out[f"excess {counts:.0e}"] = float(excess.median())
            out[f"mean {counts:.0e}"] = float(excess.mean())
        out["active"] = float((mean.var(0) > 0.05).sum())
        return out

    def weights(self, module: DecoderAndOracle, card: dict[str, Any]) -> Weights:
        return make_weights(module.decoder, oracle=module.oracle, card=card)

    def close(self) -> None:
        self.sources.close()
