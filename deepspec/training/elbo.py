"""Encoder and decoder on noisy counts: the evidence lower bound of simulated and of real observations.

Loss of one spectrum: -ln L(n | u, nH, c) at one draw of the encoder's answer, as a difference to the true model (simulated,
background known: Cash) or to the saturated one (real, background measured: W), plus beta KL[q(u, v, c) || N(0,1) of u and v].
c, the ln of expected source counts, has no prior: it separates brightness from spectrum.

The bound makes an answer as narrow as the likelihood is at its mean, however wrong that mean: nothing in it widens an answer by
what the encoder itself is unsure of. So some spectra may be the decoder's own, drawn at known coordinates; their loss is -ln q of
these, which is smallest for the true posterior, and counts the encoder's errors. Widths get better by it, means worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepspec.learned.decoder import CEILING, ComposedDecoder, Table
from deepspec.learned.encoder import Encoder, EncoderInput, Posterior, column_density
from deepspec.training.foreground import SIGMA
from deepspec.training.likelihood import cash, robust, wstat

if TYPE_CHECKING:
    from deepspec.training.sections import EncoderStageConfig

LEAST_RATIO = 1e-6
"""Background scaling that stands for no background: the profiled background is then zero wherever it matters."""
BRIGHTEST = 25.0
"""c of a draw is never taken above this: exp(25) counts are more than any detector sees, and far from overflow."""
FARTHEST = 6.0
"""Draws of u and v beyond this are brought back to it: a stray one must not overflow the decoder."""


class NoisyLoss(nn.Module):
    """An encoder, a decoder with its prior, and the loss of a batch of observations.

    Parameters
    ----------
    encoder : Encoder
    decoder : ComposedDecoder
    settings : EncoderStageConfig
    held : bool
        True if the decoder does not change: its templates are evaluated once.
    """

    def __init__(self, encoder: Encoder, decoder: ComposedDecoder, settings: EncoderStageConfig, held: bool):
        super().__init__()
        self.encoder, self.decoder, self.settings, self.held = encoder, decoder, settings, held
        self.register_buffer("sigma", torch.tensor(SIGMA, dtype=torch.float32), persistent=False)
        self._table: Table | None = None
        if held:
            decoder.requires_grad_(False)

    def table(self) -> Table | None:
        """Templates on the grid: evaluated anew unless the decoder is held."""
        if not self.held:
            return self.decoder.table()
        if self._table is None or self._table[0].device != self.sigma.device:
            with torch.no_grad():
                self._table = self.decoder.table()
        return self._table

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the simulated and, if there are any, of own and of real spectra of a batch; what is logged.

        Parameters
        ----------
        batch : dict
            As `deepspec.training.encoder_stage.EncoderStage.batch` makes it.
        step : int
            For the weight of the Kullback-Leibler term.
        """
        beta = self.settings.beta_at(step)
        misfit, latent = self.simulated(batch)
        loss = robust(misfit, self.settings.knee) + beta * latent
        logged = {"misfit": misfit.detach().median(), "latent": latent.detach().mean()}
        if "own_counts" in batch:
            own = self.own(part(batch, "own_"))
            loss = torch.cat([loss, robust(own, self.settings.knee)])
            logged["own"] = own.detach().median()
        if "real_counts" in batch:
            real, its_latent = self.real(part(batch, "real_"))
            loss = torch.cat([loss, robust(real, self.settings.knee) + beta * its_latent])
            logged["real"] = real.detach().median()
        return loss.mean(), logged

    def simulated(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Misfit at one draw relative to the truth, and divergence, shapes (batch,) [nat]."""
        answer = self.answer(seen(batch))
        with torch.autocast(batch["counts"].device.type, enabled=False):
            return self.excess(answer.draw(batch["noise"]), batch), answer.divergence()

    def excess(self, point: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """ln likelihood of the truth minus that of the spectra at points (u, v, c), shape (batch,) [nat]."""
        beneath = batch["expected_background"]
        terms = cash(batch["counts"], self.source_counts(point, batch) + beneath, batch["expected"] + beneath)
        return (terms * batch["valid"]).sum(-1)

    def own(self, batch: Mapping[str, Tensor]) -> Tensor:
        """-ln density of the true (u, v, c) of the decoder's own spectra, shape (batch,) [nat]."""
        answer = self.answer(seen(batch))
        with torch.autocast(batch["counts"].device.type, enabled=False):
            return -answer.log_density(batch["truth"])

    def real(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Misfit at one draw relative to the saturated model, and divergence, shapes (batch,) [nat]."""
        answer = self.answer(seen(batch))
        with torch.autocast(batch["counts"].device.type, enabled=False):
            source = self.source_counts(answer.draw(batch["noise"]), batch)
            terms = wstat(batch["counts"], batch["background"], batch["ratio"].clamp(min=LEAST_RATIO), source)
            return (terms * batch["valid"]).sum(-1), answer.divergence()

    def answer(self, what: EncoderInput) -> Posterior:
        """The encoder's distribution, in float32 whatever the precision of its products."""
        found = self.encoder(what)
        return Posterior(found.mean.float(), found.tril.float())

    def source_counts(self, point: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Expected source counts at points (u, v, c) of shape (batch, D + 2): sum exp(c) over valid bins, (batch, 238)."""
        inner = point[..., :-1].clamp(-FARTHEST, FARTHEST)
        density = self.decoder.log_density(inner[..., :-1], self.table())
        # Only the shape matters: the normalisation is left out, and area and foreground join the exponent
        top = density.detach()[..., self.decoder.decoder.inside].amax(-1, keepdim=True)
        foreground = column_density(inner[..., -1:]) * self.sigma
        photons = torch.exp((density - top).clamp(max=CEILING) + batch["log_area"] - foreground)
        received = through(photons, batch) * batch["valid"]
        return (
            received * torch.exp(point[..., -1:].clamp(max=BRIGHTEST)) / received.sum(-1, keepdim=True).clamp(min=1e-30)
        )

    def log_norm(self, point: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """ln of the unabsorbed flux in 0.3-10 keV [1e-12 erg cm^-2 s^-1] at points (u, v, c), shape (batch,)."""
        inner = point[..., :-1].clamp(-FARTHEST, FARTHEST)
        shape = self.decoder(inner[..., :-1], self.table())
        photons = shape * torch.exp(batch["log_area"] - column_density(inner[..., -1:]) * self.sigma)
        received = (through(photons, batch) * batch["valid"]).sum(-1)
        return point[..., -1] - torch.log(received.clamp(min=1e-30)) - torch.log(batch["exposure"].reshape(-1))


def through(photons: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Photons (batch, 600) through the matrices (k, 600, 238) of a batch, each for a run of rows; (batch, 238).

    ``batch["runs"]``, on the host, tells the lengths of the runs; without it they are equal.
    """
    matrix = batch["matrix"]
    if "runs" not in batch:
        return (photons.unflatten(0, (len(matrix), -1)) @ matrix).flatten(0, 1)
    rows = torch.split(photons, batch["runs"].tolist())
    return torch.cat([one @ response for one, response in zip(rows, matrix, strict=True)])


def seen(batch: Mapping[str, Tensor]) -> EncoderInput:
    """What the encoder sees of a batch."""
    return EncoderInput(batch["counts"], batch["background"], batch["ratio"], batch["area"], batch["valid"])


def part(batch: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in batch.items() if name.startswith(prefix)}
