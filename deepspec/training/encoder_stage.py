"""Stage 3: the encoder of noisy counts, over cameras, backgrounds and count levels; decoder and prior are held.

What it learns is a start for fits and a first posterior (`deepspec.learned.amortised`). Real spectra of a catalogue may take a
share of each batch, and the decoder may follow at a small rate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.checkpoint import Weights
from deepspec.learned.decoder import ComposedDecoder
from deepspec.learned.encoder import Encoder, build_encoder, standardised
from deepspec.learned.modules import load_decoder, load_encoder, section
from deepspec.training.cameras import Camera, CameraBank
from deepspec.training.elbo import NoisyLoss
from deepspec.training.encoder_figures import Examination
from deepspec.training.observations import ObservationSettings, ObservationStream, ObservedBatch, training_cameras
from deepspec.training.sources import SourceStream
from deepspec.training.stage import Stage

if TYPE_CHECKING:
    from deepspec.training.config import TrainConfig
    from deepspec.training.sections import CameraConfig, EncoderStageConfig

CAMERAS_PER_STEP = 4
"""Cameras in a batch, if its size is a multiple of it."""
_NOISE, _REAL, _OWN = 1, 2, 3
"""Purposes of the random numbers of a step."""


class EncoderStage(Stage):
    """Stage 3 of `deepspec train`.

    Raises
    ------
    UserError
        There is no decoder before it; the catalogue of real spectra cannot be used.
    """

    name = "encoder"
    settings: EncoderStageConfig

    def __init__(
        self,
        config: TrainConfig,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: str | torch.device = "cpu",
        previous: Weights | None = None,
    ):
        super().__init__(config, seed, rank, world, device, previous)
        self.module = self.networks().to(self.device)
        self.catalogue = open_catalogue(self.settings)
        self.real = max(1, round(self.settings.real * self.settings.batch)) if self.catalogue else 0
        simulated = self.settings.batch - self.real
        if simulated < 1:
            raise UserError(
                f"real = {self.settings.real:g} leaves no simulated spectrum in a batch of {self.settings.batch}",
                f"[stage.{self.name}]",
                "lower it or enlarge the batch",
            )
        self.cameras = CameraBank(chosen_cameras(config.cameras), self.device)
        self.sources = SourceStream(seed + 2, simulated, self.device, rank, world, **config.populations.stream())
        drawn = ObservationSettings(
            counts=tuple(map(float, self.settings.counts)),
            tilt=config.cameras.tilt,
            cameras_per_step=math.gcd(simulated, CAMERAS_PER_STEP),
        )
        self.mixed = MixedSources(self, self.sources, simulated)
        self.stream = ObservationStream(self.mixed, self.cameras, simulated, seed, rank, drawn)
        self._examination: Examination | None = None

    def networks(self) -> NoisyLoss:
        """Encoder and decoder with the loss; the decoder is that of the stages before."""
        if self.previous is None:
            raise UserError(
                "there is no trained decoder to make an encoder for",
                remedy="run `deepspec train --stage decoder` first",
            )
        held = self.settings.decoder_rate == 0
        decoder = load_decoder(self.previous).requires_grad_(not held)
        return NoisyLoss(self.fresh_encoder(decoder), decoder, self.settings, held)

    def fresh_encoder(self, decoder: ComposedDecoder) -> Encoder:
        """An encoder with random weights, or that of the weights before if it is of the same architecture."""
        config = replace(self.config.encoder, latent=decoder.latent)
        known = None if self.previous is None else load_encoder(self.previous)
        if known is not None and known.config == config:
            return known
        torch.manual_seed(self.seed)
        return build_encoder(config)

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = [{"params": list(self.module.encoder.parameters()), "scale": 1.0}]
        moving = [p for p in self.module.decoder.parameters() if p.requires_grad]
        return groups + ([{"params": moving, "scale": self.settings.decoder_rate}] if moving else [])

    # --- batches ----------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> dict[str, Tensor]:
        """Simulated observations and their truth; those of the decoder's own spectra begin with "own_", real ones with "real_"."""
        found = self.mixed.split(self.stream.batch(step), step, self.cameras)
        found["noise"] = self._noise(len(found["counts"]), self.generator(step, _NOISE))
        if self.catalogue is not None:
            real = self.real_batch(step)
            found |= {f"real_{name}": value for name, value in real.items()}
        return found

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        size = (count, self.module.encoder.config.dimension)
        return torch.randn(size, generator=generator, device=self.device)

    def real_batch(self, step: int) -> dict[str, Tensor]:
        """Spectra of the catalogue, those that share a matrix next to each other."""
        rows = self.catalogue.at(step, self.real, self.seed, "training", self.rank, self.world)
        order = np.argsort(rows["rmf"], kind="stable")
        rows = {name: values[order] for name, values in rows.items()}
        matrices, runs = np.unique(rows["rmf"], return_counts=True)
        largest = np.maximum(rows["arf"].max(1, keepdims=True), 1e-30)
        made = {name: rows[name] for name in ("counts", "background", "ratio", "area", "valid", "exposure")}
        # An area of zero is written as one that nothing comes through
        made["log_area"] = np.log(np.maximum(rows["arf"] / largest, 1e-20))
        found = {name: torch.as_tensor(values, device=self.device) for name, values in made.items()}
        found["matrix"] = torch.as_tensor(self.catalogue.matrices[matrices], device=self.device)
        found["runs"] = torch.as_tensor(runs)
        found["noise"] = self._noise(self.real, self.generator(step, _REAL))
        return found

    # --- results ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, module: NoisyLoss) -> dict[str, float]:
        """Figures for fixed simulated observations never trained on; see `Examination`."""
        if self._examination is None:
            levels = tuple(map(float, self.settings.counts))
            self._examination = Examination(
                self.cameras, levels, self.stream.settings, self.module.encoder.config.dimension
            )
        return self._examination(module)

    def weights(self, module: NoisyLoss, card: dict[str, Any]) -> Weights:
        found = replace(self.previous, encoder=section(module.encoder), card=card)
        if module.held:
            return found
        flow = module.decoder.flow
        return replace(
            found, decoder=section(module.decoder.decoder), flow=None if flow is None else section(flow), check=None
        )

    def close(self) -> None:
        self.sources.close()
        if self.catalogue is not None:
            self.catalogue.close()


class MixedSources:
    """Sources among which a share, evenly spread, is replaced by the decoder's own at coordinates drawn from N(0,1).

    Parameters
    ----------
    stage : EncoderStage
    sources : SourceStream
    size : int
        Sources per batch.
    """

    def __init__(self, stage: EncoderStage, sources: SourceStream, size: int):
        self.stage, self.sources = stage, sources
        place = np.arange(size + 1) * stage.settings.own
        own = np.diff(np.floor(place)) > 0
        self.own, self.others = (torch.as_tensor(np.flatnonzero(rows), device=stage.device) for rows in (own, ~own))
        self._others = ~own

    @torch.no_grad()
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Shapes (batch, 600) and labels (batch,)."""
        shape, label = self.sources.batch(step)
        if len(self.own):
            module = self.stage.module
            shape = shape.index_copy(0, self.own, module.decoder(self.coordinates(step), module.table()).to(shape))
        return shape, label

    def coordinates(self, step: int) -> Tensor:
        """u of the decoder's own spectra, shape (n, D)."""
        size = (len(self.own), self.stage.module.decoder.latent)
        return torch.randn(size, generator=self.stage.generator(step, _OWN), device=self.stage.device)

    def split(self, observed: ObservedBatch, step: int, cameras: CameraBank) -> dict[str, Tensor]:
        """A batch as `NoisyLoss` takes it: the decoder's own spectra apart from the others."""
        found = as_tensors(observed, cameras)
        if not len(self.own):
            return found
        coordinate = torch.stack([standardised(observed.log_nH), observed.log_counts], -1)[self.own]
        own = {f"own_{name}": found[name][self.own] for name in ("counts", "background", "ratio", "area", "valid")}
        own["own_truth"] = torch.cat([self.coordinates(step), coordinate], -1)
        matrix = found.pop("matrix")
        runs = self._others.reshape(len(matrix), -1).sum(1)
        return {name: value[self.others] for name, value in found.items()} | {
            "matrix": matrix,
            "runs": torch.as_tensor(runs),
            **own,
        }


def chosen_cameras(settings: CameraConfig) -> list[Camera]:
    """The cameras of the package that are named, each with relatives, and those of the folder."""
    made = training_cameras(tuple(settings.names), settings.relatives)
    if settings.folder:
        from deepspec.training.camera_files import from_folder

        made += from_folder(settings.folder)
    return made


def open_catalogue(settings: EncoderStageConfig):
    """The catalogue of real spectra, or None where there is none to use."""
    if settings.real == 0:
        return None
    from deepspec.training.dataset import Dataset

    found = Dataset(settings.catalogue)
    if found.count("training") == 0:
        raise UserError("holds no spectra to train with", settings.catalogue, "build a larger one, or set real = 0")
    return found


def as_tensors(observed: ObservedBatch, cameras: CameraBank) -> dict[str, Tensor]:
    """A batch of simulated observations as `NoisyLoss` takes it."""
    return {
        "counts": observed.counts,
        "background": observed.background_counts,
        "ratio": observed.alpha,
        "area": observed.relative_area,
        "valid": observed.valid,
        "exposure": observed.exposure,
        "expected": observed.expected,
        "expected_background": observed.expected_background,
        "log_area": observed.tilt,
        "matrix": cameras.matrix[observed.cameras],
    }
