"""The sections of a training configuration that are not networks: populations, cameras, optimiser, stages, the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deepspec.learned.settings import Settings, require


@dataclass(frozen=True)
class PopulationConfig(Settings):
    """Where spectra of sources come from.

    Attributes
    ----------
    block : sources drawn together, in the background
    blocks : how many such blocks a batch is taken from
    reuse : how often a source is seen
    shares : class -> weight; a class that is left out has none. Empty for the usual ones
    """

    block: int = 8192
    blocks: int = 12
    reuse: int = 4
    shares: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("block", "blocks", "reuse"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name, share in self.shares.items():
            good = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share < float("inf")
            require(good, f"shares.{name}", share, "0 or more")

    def stream(self) -> dict[str, Any]:
        """What a `SourceStream` is given."""
        return {"block": self.block, "blocks": self.blocks, "reuse": self.reuse, "shares": self.shares or None}


@dataclass(frozen=True)
class CameraConfig(Settings):
    """Whose counts are simulated.

    Attributes
    ----------
    names : cameras of the package
    folder : folder of real ARF and RMF files to use besides; "" for none
    relatives : how many slightly different ones are made of each camera of the package
    tilt : rms of the random slope of the effective area over the band
    """

    names: tuple = ("pn", "mos", "acis_s", "acis_i", "xrt", "erosita")
    folder: str = ""
    relatives: int = 4
    tilt: float = 0.1

    def __post_init__(self) -> None:
        require(bool(self.names) or bool(self.folder), "names", list(self.names), "one camera or more")
        require(all(isinstance(n, str) for n in self.names), "names", list(self.names), "names of cameras")
        require(self.relatives >= 0, "relatives", self.relatives, "0 or more")
        require(0 <= self.tilt < 1, "tilt", self.tilt, "0 to 1")


@dataclass(frozen=True)
class OptimiserConfig(Settings):
    """AdamW and what is around it.

    Attributes
    ----------
    betas, weight_decay : of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)
    clip : largest norm of the gradient
    average : memory of the running average of the weights, per step; the average is validated and written
    final : the rate at the end, as a fraction of the highest
    """

    betas: tuple = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float = 30.0
    average: float = 0.998
    final: float = 0.01

    def __post_init__(self) -> None:
        good = len(self.betas) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in self.betas)
        require(good, "betas", list(self.betas), "two numbers from 0 to below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.clip > 0, "clip", self.clip, "positive")
        require(0 <= self.average < 1, "average", self.average, "0 to below 1")
        require(0 <= self.final <= 1, "final", self.final, "0 to 1")


@dataclass(frozen=True)
class RunConfig(Settings):
    """What concerns the machine and the log, not the result (but for rounding).

    Attributes
    ----------
    precision : "float32", or "bfloat16" for matrix products
    compile : let torch compile the networks
    minutes : between two states on disk
    log_every : steps from row to row of the log
    validate_every : steps from validation to validation; weights are written then
    """

    precision: str = "float32"
    compile: bool = False
    minutes: float = 5.0
    log_every: int = 20
    validate_every: int = 1000

    def __post_init__(self) -> None:
        require(self.precision in ("float32", "bfloat16"), "precision", self.precision, '"float32" or "bfloat16"')
        require(self.minutes >= 0, "minutes", self.minutes, "0 or more")
        require(self.log_every >= 1, "log_every", self.log_every, "1 or more")
        require(self.validate_every >= 1, "validate_every", self.validate_every, "1 or more")


@dataclass(frozen=True)
class StageConfig(Settings):
    """What every stage has.

    Attributes
    ----------
    steps : how many
    batch : spectra in each step (per process)
    rate : highest learning rate
    warm_up : fraction of the steps in which the rate rises to it
    """

    steps: int = 20000
    batch: int = 256
    rate: float = 3e-3
    warm_up: float = 0.01

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(self.batch >= 1, "batch", self.batch, "1 or more")
        require(0 < self.rate < float("inf"), "rate", self.rate, "positive")
        require(0 <= self.warm_up < 1, "warm_up", self.warm_up, "0 to below 1")

    def progress(self, step: int) -> float:
        """Fraction of the stage that is done before step `step`."""
        return step / self.steps


@dataclass(frozen=True)
class VariationalConfig(StageConfig):
    """A stage with a Kullback-Leibler term, whose weight rises from `beta` to 1.

    A weight of 1 from the start makes latent coordinates collapse for good.

    Attributes
    ----------
    beta : first weight
    beta_hold : fraction of the steps with that weight
    beta_full : fraction of the steps from which the weight is 1; it rises linearly between
    """

    beta: float = 0.02
    beta_hold: float = 0.4
    beta_full: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.beta <= 1, "beta", self.beta, "0 to 1")
        require(0 <= self.beta_hold <= 1, "beta_hold", self.beta_hold, "0 to 1")
        require(self.beta_hold <= self.beta_full <= 1, "beta_full", self.beta_full, "beta_hold to 1")

    def beta_at(self, step: int) -> float:
        """Weight of the Kullback-Leibler term in step `step`."""
        progress, width = self.progress(step), self.beta_full - self.beta_hold
        risen = (progress - self.beta_hold) / width if width > 0 else float(progress >= self.beta_full)
        return self.beta + (1.0 - self.beta) * min(max(risen, 0.0), 1.0)


@dataclass(frozen=True)
class DecoderStageConfig(VariationalConfig):
    """Noise-free training of the decoder through the oracle.

    Attributes
    ----------
    counts : least and most reference counts, log-uniform
    ideal : share of the ideal detector in the loss
    knee : losses above it continue logarithmically
    unabsorbed : share of each batch without foreground
    cameras : cameras of the package, one of them for each step; the ideal detector has no camera
    """

    counts: tuple = (1e3, 3e5)
    cameras: tuple = ("pn",)
    ideal: float = 0.1
    knee: float = 100.0
    unabsorbed: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("counts", self.counts)
        require(0 <= self.ideal <= 1, "ideal", self.ideal, "0 to 1")
        require(self.knee > 0, "knee", self.knee, "positive")
        require(0 <= self.unabsorbed <= 1, "unabsorbed", self.unabsorbed, "0 to 1")
        require(bool(self.cameras), "cameras", list(self.cameras), "one camera or more")


@dataclass(frozen=True)
class PriorStageConfig(StageConfig):
    """The flow, fitted to where sources lie in the decoder's coordinates.

    Attributes
    ----------
    counts : least and most reference counts of the oracle, log-uniform
    """

    steps: int = 8000
    batch: int = 512
    rate: float = 1e-3
    counts: tuple = (3e4, 3e5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("counts", self.counts)


@dataclass(frozen=True)
class EncoderStageConfig(VariationalConfig):
    """The encoder of noisy counts, decoder and prior held.

    Attributes
    ----------
    counts : least and most expected source counts, log-uniform
    knee : a misfit above it continues logarithmically
    own : share of the simulated spectra that are the decoder's own, at known coordinates, and teach the encoder its widths
    catalogue : file of real spectra from `deepspec dataset build`; "" for none
    real : share of real spectra in each batch, if there is a catalogue
    decoder_rate : rate of decoder and prior as a fraction of the encoder's; 0 holds them
    """

    steps: int = 20000
    batch: int = 128
    rate: float = 1e-3
    counts: tuple = (50.0, 1e5)
    knee: float = 300.0
    own: float = 0.0
    catalogue: str = ""
    real: float = 0.0
    decoder_rate: float = 0.0
    # decoder and prior are held, so no coordinate can collapse
    beta: float = 1.0
    beta_hold: float = 0.0
    beta_full: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("counts", self.counts)
        require(self.knee > 0, "knee", self.knee, "positive")
        require(0 <= self.own < 1, "own", self.own, "0 to below 1")
        require(self.own == 0 or self.decoder_rate == 0, "own", self.own, "0 where the decoder moves")
        require(0 <= self.real < 1, "real", self.real, "0 to below 1")
        require(
            self.real == 0 or bool(self.catalogue), "catalogue", self.catalogue, "a file of real spectra if real > 0"
        )
        require(0 <= self.decoder_rate <= 1, "decoder_rate", self.decoder_rate, "0 to 1")


@dataclass(frozen=True)
class JointStageConfig(EncoderStageConfig):
    """Everything at once on noisy counts: after the other stages with a small rate, or alone, the plain VAE."""

    rate: float = 1e-4
    decoder_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.decoder_rate > 0, "decoder_rate", self.decoder_rate, "above 0: all is trained here")


def _require_range(name: str, value: Any) -> None:
    good = len(value) == 2 and all(isinstance(v, int | float) for v in value) and 0 < value[0] <= value[1]
    require(good, name, list(value), "two positive numbers, the lower one first")
