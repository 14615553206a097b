"""Configuration of a training run: a TOML file, checked name by name and value by value, into frozen dataclasses.

Schedules are fractions of a stage's steps, so that ``--steps`` shortens or stretches all of it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from deepspec.errors import UserError
from deepspec.learned.settings import Settings
from deepspec.registry import Registry, did_you_mean
from deepspec.training.sections import (
    CameraConfig,
    DecoderStageConfig,
    EncoderStageConfig,
    JointStageConfig,
    OptimiserConfig,
    PopulationConfig,
    PriorStageConfig,
    RunConfig,
    StageConfig,
)

NETWORKS = Registry(
    "network",
    {
        "decoder": "deepspec.learned.decoder:DecoderConfig",
        "oracle": "deepspec.learned.oracle:OracleConfig",
        "prior": "deepspec.learned.flow:FlowConfig",
        "encoder": "deepspec.learned.encoder:EncoderConfig",
    },
)
"""Section of the file -> settings of a network; their latent dimension is the decoder's unless it is given."""
SECTIONS = {
    "populations": PopulationConfig,
    "cameras": CameraConfig,
    "optimiser": OptimiserConfig,
    "run": RunConfig,
}
STAGE_SECTIONS = {
    "decoder": DecoderStageConfig,
    "prior": PriorStageConfig,
    "encoder": EncoderStageConfig,
    "joint": JointStageConfig,
}
"""Stages in the order in which they are run."""


@dataclass(frozen=True)
class TrainConfig:
    """All that decides a training run, but its seed and device.

    Attributes
    ----------
    stages : names of the stages that a whole run consists of, in order
    stage : the settings of each stage, by name
    decoder, oracle, prior, encoder : the networks
    """

    stages: tuple[str, ...] = ("decoder", "prior", "encoder")
    populations: PopulationConfig = field(default_factory=PopulationConfig)
    cameras: CameraConfig = field(default_factory=CameraConfig)
    decoder: Any = field(default_factory=lambda: NETWORKS["decoder"]())
    oracle: Any = field(default_factory=lambda: NETWORKS["oracle"]())
    prior: Any = field(default_factory=lambda: NETWORKS["prior"]())
    encoder: Any = field(default_factory=lambda: NETWORKS["encoder"]())
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)
    stage: Mapping[str, StageConfig] = field(default_factory=lambda: {n: made() for n, made in STAGE_SECTIONS.items()})

    def __post_init__(self) -> None:
        _check_stages(self.stages)
        for name in NETWORKS:
            latent = getattr(getattr(self, name), "latent", self.decoder.latent)
            if latent != self.decoder.latent:
                raise UserError(
                    f"latent = {latent} but the decoder has {self.decoder.latent}",
                    f"[{name}]",
                    "leave latent out there: it follows [decoder] latent",
                )

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, as the TOML file has it."""
        plain: dict[str, Any] = {"stages": list(self.stages)}
        plain |= {name: getattr(self, name).as_dict() for name in (*SECTIONS, *NETWORKS)}
        return plain | {"stage": {name: settings.as_dict() for name, settings in self.stage.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: Any = None) -> TrainConfig:
        """From nested plain data; what is left out keeps its default.

        Raises
        ------
        UserError
            An unknown section or name, or an impossible value.
        """
        known = ["stages", *SECTIONS, *NETWORKS, "stage"]
        for name, value in values.items():
            if name not in known:
                raise UserError(f"unknown section '{name}'", source, did_you_mean(name, known))
            if not isinstance(value, list if name == "stages" else dict):
                kind, remedy = (
                    ("list", 'stages = ["decoder", "prior"]') if name == "stages" else ("section", f"[{name}]")
                )
                raise UserError(f"{name} = {value!r} is not a {kind}", source, f"write {remedy}")
        made: dict[str, Any] = {"stages": tuple(values["stages"])} if "stages" in values else {}
        for name, kind in SECTIONS.items():
            made[name] = _section(kind, values.get(name, {}), name, source)
        for name in NETWORKS:
            given = dict(values.get(name, {}))
            if name != "decoder":
                given.setdefault("latent", made["decoder"].latent)
            made[name] = _section(NETWORKS[name], given, name, source)
        given = values.get("stage", {})
        for name, value in given.items():
            if name not in STAGE_SECTIONS:
                raise UserError(f"unknown stage '{name}'", source, did_you_mean(name, STAGE_SECTIONS))
            if not isinstance(value, dict):
                raise UserError(f"stage.{name} = {value!r} is not a section", source, f"write [stage.{name}] above it")
        made["stage"] = {
            n: _section(kind, given.get(n, {}), f"stage.{n}", source) for n, kind in STAGE_SECTIONS.items()
        }
        try:
            return cls(**made)
        except UserError as error:
            raise UserError(error.problem, _joined(source, error.source), error.remedy) from error

    def with_changes(self, changes: Mapping[str, Any], source: Any = None) -> TrainConfig:
        """With some values in place of others; `changes` is nested as `as_dict` is.

        A new latent dimension of the decoder holds for all networks.
        """
        plain = self.as_dict()
        of_decoder = changes.get("decoder")
        if isinstance(of_decoder, Mapping) and "latent" in of_decoder:
            for name in NETWORKS:
                plain[name].pop("latent", None)
        return TrainConfig.from_dict(_merged(plain, changes), source)

    def digest(self) -> str:
        """SHA-256 of the configuration."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_toml(self) -> str:
        """The text of a file that gives this configuration."""
        return _toml(self.as_dict())


def _check_stages(stages: tuple[str, ...]) -> None:
    for name in stages:
        if name not in STAGE_SECTIONS:
            raise UserError(f"unknown stage '{name}'", "stages", did_you_mean(str(name), STAGE_SECTIONS))
    order = [name for name in STAGE_SECTIONS if name in stages]
    if not stages or list(stages) != order or stages[0] not in ("decoder", "joint"):
        raise UserError(
            f"stages = {list(stages)} cannot be run in this order",
            "stages",
            "write them in the order decoder, prior, encoder, joint, beginning with decoder or with joint alone",
        )


def _joined(source: Any, place: Any) -> str | None:
    return ", ".join(str(part) for part in (source, place) if part) or None


def _section(kind: type[Settings], values: dict[str, Any], name: str, source: Any) -> Any:
    return kind.from_dict(values, _joined(source, f"[{name}]"))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def differences(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Names of values that differ between two nested configurations, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{place}{name}.")
        elif a != b:
            found[f"{place}{name}"] = (a, b)
    return found


# --- files ----------------------------------------------------------------------------------------------------------


def presets() -> dict[str, str]:
    """Name of each configuration that ships with the package, and what its first line says."""
    folder = resources.files("deepspec.training") / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text().partition("\n")[0].lstrip("# ") for f in files}


def load_config(path: str | Path | None = None, preset: str | None = None, changes: Iterable[str] = ()) -> TrainConfig:
    """The configuration of a file or of a preset, with changes.

    Parameters
    ----------
    path : str or Path, optional
        A TOML file; what it leaves out keeps its default.
    preset : str, optional
        Name of a configuration of the package; "default" if neither is given.
    changes : iterable of str
        Each "section.key=value", as on the command line.

    Raises
    ------
    UserError
        No such file or preset, not TOML, an unknown name, an impossible value.
    """
    if path is not None and preset is not None:
        raise UserError("both a configuration file and --preset are given", path, "give one of them")
    if path is None:
        preset = preset or "default"
        if preset not in presets():
            raise UserError(f"unknown preset '{preset}'", "--preset", did_you_mean(preset, presets()))
        text, source = (
            (resources.files("deepspec.training") / "presets" / f"{preset}.toml").read_text(),
            f"{preset}.toml",
        )
    else:
        text, source = _read(path), path
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"is not valid TOML ({error})", source, "see docs/training.md for an example") from error
    config = TrainConfig.from_dict(values, source)
    for change in changes:
        config = config.with_changes(parse_change(change), f"--set {change}")
    return config


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError as error:
        raise UserError("is not a text file", path, "give a TOML file, or --preset NAME") from error
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror or error})", path, "give a TOML file, or --preset NAME"
        ) from error


def parse_change(text: str) -> dict[str, Any]:
    """ "stage.decoder.rate=1e-3" as nested plain data.

    Raises
    ------
    UserError
        Not of that form.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value or not all(name.split(".")):
        raise UserError(
            f"'{text}' is not understood", "--set", "write --set section.key=value, as stage.decoder.rate=1e-3"
        )
    try:
        found: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        found = value  # a word without quotation marks
    for key in reversed(name.split(".")):
        found = {key: found}
    return found


def _toml(plain: Mapping[str, Any], place: str = "") -> str:
    """TOML of nested plain data: values first, then sections."""
    lines = [f"{_key(name)} = {_value(value)}" for name, value in plain.items() if not isinstance(value, Mapping)]
    for name, value in plain.items():
        if isinstance(value, Mapping):
            here = f"{place}{_key(name)}"
            nested = bool(value) and all(isinstance(v, Mapping) for v in value.values())
            lines += ["" if nested else f"\n[{here}]", _toml(value, f"{here}.").rstrip("\n")]
    return "\n".join(line for line in lines if line) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    # JSON writes texts, booleans and whole numbers as TOML does, but for DEL; a float keeps its shortest exact form
    plain = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return plain.replace("\x7f", "\\u007f")
