"""The loss without noise: what C-stat would lose on average between the shapes of true and predicted counts."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.learned.decoder import CEILING, Decoder
from deepspec.learned.grids import CENTRES
from deepspec.training.cameras import camera
from deepspec.training.foreground import SIGMA, draw_log_nH
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


class NoiseFree(nn.Module):
    """A decoder, cameras, and the loss of predicted against known spectra.

    Parameters
    ----------
    decoder : Decoder
    settings : DecoderStageConfig
    """

    def __init__(self, decoder: Decoder, settings: DecoderStageConfig):
        super().__init__()
        self.decoder, self.settings = decoder, settings
        matrices = np.stack([camera(name).matrix for name in settings.cameras])
        self.register_buffer("cameras", torch.as_tensor(matrices).float(), persistent=False)
        # the ideal detector: an area in proportion to the energy, groups of bins of the grid
        self.register_buffer("energy", torch.as_tensor(CENTRES).float(), persistent=False)
        self.register_buffer("sigma", torch.tensor(np.array(SIGMA)).float(), persistent=False)

    def detected(self, flux: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Expected counts per second in the camera, shape (batch, 238), and in the ideal detector, (batch, 150)."""
        matrix = self.cameras.index_select(0, camera.reshape(1))[0]
        return flux @ matrix, (flux * self.energy).unflatten(-1, (-1, IDEAL_GROUP)).sum(-1)

    def misfit(self, density: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of ln likelihood at the reference counts, shape (batch,).

        Parameters
        ----------
        density : Tensor, shape (batch, 600)
            Predicted ln density, up to a constant.
        batch : dict
            shape (batch, 600); log_counts, log_nH, absorbed of shape (batch,); camera ().
        """
        with torch.no_grad():
            depth = (10.0 ** batch["log_nH"] * batch["absorbed"]).unsqueeze(-1) * self.sigma
            true = self.detected(batch["shape"] * torch.exp(-depth), batch["camera"])
        # Only shapes are compared: the decoder's normalisation is left out, and the foreground joins the exponent.
        top = density.detach()[..., self.decoder.inside].amax(-1, keepdim=True)
        found = self.detected(torch.exp((density - top).clamp(max=CEILING) - depth), batch["camera"])
        ideal = self.settings.ideal
        divergence = (1.0 - ideal) * shape_divergence(true[0], found[0]) + ideal * shape_divergence(true[1], found[1])
        return divergence * torch.exp(batch["log_counts"])


def conditions(shape: Tensor, settings: DecoderStageConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Reference counts, foreground and camera for known spectra: the batch of `NoiseFree.misfit`."""
    count, device = len(shape), shape.device
    low, high = (math.log(x) for x in settings.counts)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=device)

    return {
        "shape": shape,
        "log_counts": low + (high - low) * uniform(count),
        "log_nH": draw_log_nH(count, generator).float(),
        "absorbed": (uniform(count) >= settings.unabsorbed).float(),
        "camera": torch.randint(len(settings.cameras), (), generator=generator, device=device),
    }
