"""`train`: the stages of a configuration, one after the other, into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.learned.checkpoint import read_weights
from deepspec.registry import did_you_mean
from deepspec.training import STAGES
from deepspec.training.config import TrainConfig, load_config
from deepspec.training.distributed import Group, group
from deepspec.training.endings import make_folder, repeatable
from deepspec.training.loop import Report, run, weights_path
from deepspec.training.stage import Stage, mixed


def train(
    config: TrainConfig | str | Path = "default",
    out: str | Path = "training",
    stage: str = "all",
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    report: Report | None = None,
) -> Path:
    """Train the learned component, or a stage of it.

    Parameters
    ----------
    config : TrainConfig, str or Path
        A configuration, the name of a preset, or a TOML file.
    out : str or Path
        Folder for states, logs and weights; made if it does not exist.
    stage : str
        "decoder", "prior", "encoder", "joint", or "all" that the configuration lists.
    resume : bool
        Go on from what is in the folder; stages that are complete are passed over.
    device : str
        "auto", "cpu", "cuda", "cuda:1".
    seed : int
    threads : int, optional
        Processor cores that torch may use, from now on; as it is if not given.
    report : callable, optional
        Called with a `deepspec.training.log.Progress` now and then.

    Returns
    -------
    Path
        The weights that the last stage wrote.

    Raises
    ------
    UserError
        See `deepspec.training.loop.run`; or an earlier stage has not been trained.

    Examples
    --------
    >>> train("tiny", "run1")  # doctest: +SKIP
    PosixPath('run1/weights.h5')
    """
    config = _configuration(config)
    if seed < 0:
        raise UserError(f"{seed} is no seed", "--seed", "give 0 or more")
    if stage != "all" and stage not in STAGES:
        raise UserError(f"unknown stage '{stage}'", "--stage", did_you_mean(stage, [*STAGES, "all"]))
    if threads is not None:
        if threads < 1:
            raise UserError(f"{threads} cores are too few", "--threads", "give 1 or more")
        torch.set_num_threads(threads)
    folder = Path(out)
    with group(device) as processes:
        if processes.rank == 0:
            _prepare(folder, config)
        processes.barrier()
        for name in config.stages if stage == "all" else [stage]:
            made = make_stage(name, config, folder, seed, processes)
            try:
                run(made, folder, resume, report, processes)
            finally:
                made.close()
            processes.barrier()
        last = weights_path(folder, name)
        if name == chain(config, name)[-1]:
            last = folder / "weights.h5"
            if processes.rank == 0:
                with write_beside(last) as temporary:
                    shutil.copyfile(weights_path(folder, name), temporary)
    return last


def _configuration(config: TrainConfig | str | Path) -> TrainConfig:
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, Path) or str(config).endswith(".toml"):
        return load_config(config)
    return load_config(preset=config)


def _prepare(folder: Path, config: TrainConfig) -> None:
    """The folder, with the configuration in it."""
    make_folder(folder)
    with write_beside(folder / "config.toml") as temporary:
        temporary.write_text(config.as_toml())


def chain(config: TrainConfig, name: str) -> tuple[str, ...]:
    """The stages that `name` belongs to, in order: those of the configuration, or all if it does not list it."""
    return config.stages if name in config.stages else tuple(STAGES)


def make_stage(name: str, config: TrainConfig, folder: str | Path, seed: int, processes: Group) -> Stage:
    """Stage `name`, its networks started from `seed`, on top of what the stage before it left in the folder.

    Raises
    ------
    UserError
        That stage has not been trained.
    """
    stages = chain(config, name)
    before = stages[: stages.index(name)]
    previous = None
    if before:
        path = weights_path(folder, before[-1])
        if not path.exists():
            raise UserError(
                f"stage {name} needs the weights of stage {before[-1]}", path, f"run --stage {before[-1]} first"
            )
        previous = read_weights(path)
    with repeatable(processes.device):
        torch.manual_seed(mixed(seed, list(STAGES).index(name)))
        return STAGES[name](config, seed, processes.rank, processes.world, processes.device, previous)
