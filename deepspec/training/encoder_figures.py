"""How good an encoder is: fixed simulated observations, the statistic above the truth, and whether its widths are right."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deepspec.learned.encoder import Posterior, standardised
from deepspec.training.cameras import CameraBank
from deepspec.training.elbo import NoisyLoss, seen
from deepspec.training.observations import ObservationSettings, ObservedBatch, Simulator
from deepspec.training.sources import CLASS_NAMES, held_out
from deepspec.training.stage import seeded

LEVELS = (1e2, 1e3, 1e4, 1e5)
"""Expected source counts at which an encoder is examined, as far as it is trained for them."""
PER_CLASS = 16
"""Sources of each class, on average, at each level."""
DRAWS = 12
"""Points of each posterior for the width of the flux, in pairs on opposite sides of its mean."""


class Examination:
    """Fixed observations of sources that no stream draws, as many of each class.

    Parameters
    ----------
    cameras : CameraBank
    counts : lowest and highest expected source counts of the training
    settings : ObservationSettings
    dimension : int
        Of the encoder's answer.
    per_class : int
    """

    def __init__(
        self,
        cameras: CameraBank,
        counts: tuple[float, float],
        settings: ObservationSettings,
        dimension: int,
        per_class: int = PER_CLASS,
    ):
        self.levels = tuple(level for level in LEVELS if counts[0] <= level <= counts[1]) or (counts[1],)
        device, size = cameras.matrix.device, per_class * len(CLASS_NAMES)
        sources = held_out(size, seed=3, device=device, shares=dict.fromkeys(CLASS_NAMES, 1.0))
        # One run of spectra for each of so many cameras
        chosen = torch.arange(settings.cameras_per_step * 2 if size % (settings.cameras_per_step * 2) == 0 else 1)
        chosen = (chosen * 7919 % len(cameras)).to(device)
        self.observed: list[ObservedBatch] = []
        for number, level in enumerate(self.levels):
            simulator = Simulator(cameras, replace(settings, counts=(level, level)))
            self.observed.append(simulator(sources.shape, sources.label, chosen, seeded(device, 3, number)))
        half = torch.randn((DRAWS // 2, size, dimension), generator=seeded(device, 4), device=device)
        self.noise = torch.cat([half, -half])
        self.cameras = cameras

    @torch.no_grad()
    def __call__(self, module: NoisyLoss) -> dict[str, float]:
        """Figures by name.

        Returns
        -------
        dict
            ``loss``: mean bound with full KL weight [nat]; ``excess L``: median C above the truth at the mean of the answer,
            for L expected source counts; ``excess L class``; ``nH 68 L``, ``flux 68 L``: share of the true log nH, and of the
            true unabsorbed 0.3-10 keV flux, within one standard deviation of the answer.
        """
        from deepspec.training.encoder_stage import as_tensors

        losses, out = [], {}
        for level, observed in zip(self.levels, self.observed, strict=True):
            batch, name = as_tensors(observed, self.cameras), f"{level:.0e}".replace("e+0", "e")
            answer = module.answer(seen(batch))
            excess = 2.0 * module.excess(answer.mean, batch)
            losses.append(module.excess(answer.draw(self.noise[0]), batch) + answer.divergence())
            out[f"excess {name}"] = float(excess.median())
            out[f"nH 68 {name}"] = nH_within(answer, observed)
            out[f"flux 68 {name}"] = self.flux_within(module, answer, observed, batch)
            for label, kind in enumerate(CLASS_NAMES):
                found = excess[observed.label == label]
                if len(found):
                    out[f"excess {name} {kind}"] = float(found.median())
        return {"loss": float(torch.cat(losses).mean()), **out}

    def flux_within(
        self, module: NoisyLoss, answer: Posterior, observed: ObservedBatch, batch: dict[str, Tensor]
    ) -> float:
        """Share of sources whose true ln flux is within a standard deviation of the mean of draws."""
        flux = torch.stack([module.log_norm(answer.draw(noise), batch) for noise in self.noise])
        return within(flux.mean(0), flux.std(0), torch.log(observed.norm))


def nH_within(answer: Posterior, observed: ObservedBatch) -> float:
    """Share of sources whose true log nH is within a standard deviation of the mean."""
    return within(answer.mean[:, -2], answer.spread[:, -2], standardised(observed.log_nH))


def within(mean: Tensor, spread: Tensor, truth: Tensor) -> float:
    """Share of `truth` within `spread` of `mean`."""
    return float(((truth - mean).abs() < spread).float().mean())
