"""Stage 1: the decoder, on noise-free spectra.

A simulated source is known exactly, so the decoder needs no Poisson noise to learn what spectra look like. Per source and step a
number of reference counts N and a foreground are drawn; the loss is what C-stat would on average lose at N counts, between the
shapes of the true and of the predicted counts, through a camera and (a tenth) through an ideal detector, plus the KL divergence of
the oracle's answer from N(0,1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.learned.decoder import CEILING, Decoder, build_decoder
from deepspec.learned.grids import CENTRES
from deepspec.learned.modules import make_weights
from deepspec.learned.oracle import Oracle, build_oracle
from deepspec.training.cameras import camera
from deepspec.training.foreground import SIGMA, draw_log_nH
from deepspec.training.sources import SourceStream, held_out
from deepspec.training.stage import Stage, seeded

if TYPE_CHECKING:
    from deepspec.learned.checkpoint import Weights
    from deepspec.training.config import TrainConfig
    from deepspec.training.sections import DecoderStageConfig


IDEAL_GROUP = 4
"""Bins of the grid in one bin of the ideal detector: 150 bins of 2.8 %."""


def shape_divergence(true: Tensor, predicted: Tensor) -> Tensor:
    """KL divergence of two shapes of counts, shape (...): half of C-stat per count, the norm profiled out.

    Written as a sum of terms none of which is negative, ``p ln(p/q) - p + q``, so that float32 does not cancel.
    """
    p = (true / true.sum(-1, keepdim=True)).clamp(min=1e-12)
    q = (predicted / predicted.sum(-1, keepdim=True)).clamp(min=1e-12)
    return (p * torch.log(p / q) - p + q).sum(-1)


def robust(loss: Tensor, largest: float) -> Tensor:
    """`loss`, above `largest` as ``largest (1 + ln(loss / largest))``."""
    high = loss.clamp(min=largest)
    return torch.where(loss > largest, largest * (1.0 + torch.log(high / largest)), loss)


class DecoderAndOracle(nn.Module):
    """All that stage 1 trains, and its loss."""

    def __init__(self, decoder: Decoder, oracle: Oracle, settings: DecoderStageConfig):
        super().__init__()
        self.decoder, self.oracle, self.settings = decoder, oracle, settings
        matrices = np.stack([camera(name).matrix for name in settings.cameras])
        self.register_buffer("cameras", torch.as_tensor(matrices).float(), persistent=False)
        # the ideal detector: an area in proportion to the energy, groups of bins of the grid
        self.register_buffer("energy", torch.as_tensor(CENTRES).float(), persistent=False)
        self.register_buffer("sigma", torch.tensor(np.array(SIGMA)).float(), persistent=False)

    def detected(self, flux: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Expected counts per second in the camera, shape (batch, 238), and in the ideal detector, (batch, 150)."""
        matrix = self.cameras.index_select(0, camera.reshape(1))[0]
        return flux @ matrix, (flux * self.energy).unflatten(-1, (-1, IDEAL_GROUP)).sum(-1)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and what is logged.

        Parameters
        ----------
        batch : dict
            shape (batch, 600); log_counts, log_nH, absorbed of shape (batch,); noise (batch, latent); camera ().
        step : int
            Decides the weight of the divergence from N(0,1).
        """
        settings = self.settings
        mean, sd = self.oracle(batch["shape"], batch["log_counts"], batch["log_nH"], batch["absorbed"])
        density = self.decoder.log_density(mean + sd * batch["noise"])
        with torch.no_grad():
            depth = (10.0 ** batch["log_nH"] * batch["absorbed"]).unsqueeze(-1) * self.sigma
            true = self.detected(batch["shape"] * torch.exp(-depth), batch["camera"])
        # Only shapes are compared: the decoder's normalisation is left out, and the foreground joins the exponent.
        top = density.detach()[..., self.decoder.inside].amax(-1, keepdim=True)
        found = self.detected(torch.exp((density - top).clamp(max=CEILING) - depth), batch["camera"])
        divergence = (1.0 - settings.ideal) * shape_divergence(true[0], found[0])
        divergence = divergence + settings.ideal * shape_divergence(true[1], found[1])
        misfit = divergence * torch.exp(batch["log_counts"])
        latent = 0.5 * (mean**2 + sd**2 - 1.0).sum(-1) - torch.log(sd).sum(-1)
        loss = (robust(misfit, settings.knee) + settings.beta_at(step) * latent).mean()
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
        """Reference counts, foreground and the oracle's noise for known spectra."""
        count, device, settings = len(shape), shape.device, self.settings
        low, high = (math.log(x) for x in settings.counts)

        def uniform(*size: int) -> Tensor:
            return torch.rand(*size, generator=generator, device=device)

        return {
            "shape": shape,
            "log_counts": low + (high - low) * uniform(count),
            "log_nH": draw_log_nH(count, generator).float(),
            "absorbed": (uniform(count) >= settings.unabsorbed).float(),
            "noise": torch.randn(count, self.module.decoder.latent, generator=generator, device=device),
            "camera": torch.randint(len(settings.cameras), (), generator=generator, device=device),
        }

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
