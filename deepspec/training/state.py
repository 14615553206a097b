"""The state of a run on disk, from which it goes on as if it had never stopped. HDF5, no pickle, written whole or not at all.

File format, "deepspec training state 1"
    attributes: format, stage, step (steps done), seconds (of training so far), config (JSON), window (JSON: sums since the last
    row of the log), validation (JSON: figures of the last one).
    ``module/<name>``, ``average/<name>``: the networks and their running average, named as in the state dictionary.
    ``optimiser/<number>/<name>``: moments of each parameter, in the order of the optimiser's own state dictionary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.errors import UserError
from deepspec.files import write_beside

FORMAT = "deepspec training state 1"


@dataclass
class TrainingState:
    """All that a run needs to go on: `step` steps are done."""

    stage: str
    step: int
    seconds: float
    config: dict[str, Any]
    module: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    window: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)


def write_state(path: str | Path, state: TrainingState) -> None:
    """Write `state` in place of the file at `path`; a cut at any moment leaves either the old file or the new one.

    Raises
    ------
    UserError
        No space, or the folder may not be written to.
    """
    import h5py

    with write_beside(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format=FORMAT, stage=state.stage, step=state.step, seconds=state.seconds)
        file.attrs["config"] = json.dumps(state.config)
        file.attrs["window"] = json.dumps(state.window)
        file.attrs["validation"] = json.dumps(state.validation)
        _put(file.create_group("module"), state.module)
        _put(file.create_group("average"), state.average)
        for number, moments in state.optimiser.items():
            _put(file.create_group(f"optimiser/{number}"), moments)


def read_state(path: str | Path) -> TrainingState:
    """The state written by `write_state`, on the CPU.

    Raises
    ------
    UserError
        The file is truncated, foreign, or of a newer version.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"is not a state of this version ('{FORMAT}')", path, _ANEW)
            optimiser = file["optimiser"] if "optimiser" in file else {}
            return TrainingState(
                stage=str(file.attrs["stage"]),
                step=int(file.attrs["step"]),
                seconds=float(file.attrs["seconds"]),
                config=json.loads(file.attrs["config"]),
                module=_get(file["module"]),
                average=_get(file["average"]),
                optimiser={int(number): _get(optimiser[number]) for number in optimiser},
                window=json.loads(file.attrs["window"]),
                validation=json.loads(file.attrs["validation"]),
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError("cannot be read as a training state", path, _ANEW) from error


_ANEW = "remove the file and train anew, or choose another folder"


def _put(group, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        group.create_dataset(name, data=torch.as_tensor(tensor).detach().cpu().numpy())


def _get(group) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(group[name][()])) for name in group}


def load_module(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Put stored tensors into a module.

    Raises
    ------
    UserError
        They belong to another architecture.
    """
    own = module.state_dict()
    different = [
        n for n in sorted({*own, *tensors}) if n not in own or n not in tensors or own[n].shape != tensors[n].shape
    ]
    if different:
        raise UserError(
            f"holds another architecture ({different[0]} differs)",
            path,
            "resume with the configuration it was begun with, or choose another folder",
        )
    module.load_state_dict(tensors)


def sweep(path: Path) -> None:
    """Remove what a killed process left beside `path` in the middle of a write."""
    for left in path.parent.glob(f".{path.stem}-*{path.suffix}"):
        left.unlink(missing_ok=True)
