"""The training loop: one stage, from its first step or from the state on disk to its last step.

Every step depends on the weights and on (seed, rank, step) alone, so a run that was killed goes on with the losses it would
have had. Read `run` from top to bottom; the rest of the file is what it calls.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepspec.errors import DeepspecWarning, UserError
from deepspec.learned.checkpoint import write_weights
from deepspec.provenance import provenance
from deepspec.training.config import NETWORKS, differences
from deepspec.training.distributed import Group
from deepspec.training.endings import Interrupted, clear_words, compiled, only_run, repeatable, signals
from deepspec.training.log import CsvLog, Progress
from deepspec.training.sections import StageConfig
from deepspec.training.stage import Stage, mixed
from deepspec.training.state import TrainingState, load_module, read_state, sweep, write_state

Report = Callable[[Progress], None]
FORWARD = 2**31
"""Tells torch's generator in a step from those that a stage makes its batch with."""


@dataclass
class Run:
    """A stage on its way: what the loop changes from step to step."""

    stage: Stage
    folder: Path
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    window: dict[str, Tensor | float] = field(default_factory=dict)
    saved: int | None = None
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def state_path(self) -> Path:
        return state_path(self.folder, self.stage.name)


def state_path(folder: str | Path, name: str) -> Path:
    """Where the state of stage `name` lies."""
    return Path(folder) / f"{name}-state.h5"


def weights_path(folder: str | Path, name: str) -> Path:
    """Where stage `name` leaves its weights."""
    return Path(folder) / f"{name}.h5"


def run(
    stage: Stage,
    folder: str | Path,
    resume: bool = False,
    report: Report | None = None,
    group: Group | None = None,
) -> dict[str, float]:
    """Train `stage`; its weights go to ``folder/<stage>.h5``, its state to ``<stage>-state.h5``, its log to ``<stage>.csv``.

    Parameters
    ----------
    stage : Stage
    folder : str or Path
    resume : bool
        Go on from the state in the folder, if there is one.
    report : callable, optional
        Called with a `Progress` for each row of the log.
    group : Group, optional
        The processes that work on this together.

    Returns
    -------
    dict of str to float
        Figures of the last validation.

    Raises
    ------
    UserError
        The folder holds another run, the loss is no number any more, the GPU has too little memory, the disk is full.
    Interrupted
        Ctrl-C or SIGTERM; the state was written.
    """
    group = group or Group(device=stage.device)
    settings, options, machine = stage.settings, stage.config.optimiser, stage.config.run
    wrapped = group.wrap(stage.module)
    forward = compiled(wrapped) if machine.compile else wrapped
    now = Run(stage, Path(folder), copy.deepcopy(stage.module).requires_grad_(False).eval(), make_optimiser(stage))
    parameters = [p for g in now.optimiser.param_groups for p in g["params"]]
    # Looking at a flag makes a GPU, or other processes, wait; so they are asked now and then.
    every = 1 if group.world == 1 and stage.device.type == "cpu" else 10

    with only_run(now.folder, group), repeatable(stage.device), signals() as asked, clear_words(stage):
        log = restore(now, resume, group)
        if group.rank == 0 and not now.validation:
            # What fails in a validation fails now, not in an hour; and it names columns of the log.
            now.validation = validate(now)
        written, began, since = time.monotonic(), time.monotonic() - now.seconds, (now.step, time.monotonic())
        healthy = torch.tensor(True, device=stage.device)
        stop = broken = False
        while now.step < settings.steps:
            step = now.step
            torch.manual_seed(mixed(stage.seed, stage.rank, step, FORWARD))
            for parameter_group in now.optimiser.param_groups:
                parameter_group["lr"] = parameter_group["scale"] * rate_at(settings, options.final, step)
            batch = stage.batch(step)
            with torch.autocast(stage.device.type, torch.bfloat16, enabled=machine.precision == "bfloat16"):
                loss, scalars = forward(batch, step)
            now.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, options.clip)
            now.optimiser.step()
            follow(now.average, stage.module, step, options.average)
            add(now.window, {"loss": loss, **scalars, "gradient": norm})
            healthy &= torch.isfinite(loss.detach()) & torch.isfinite(norm)
            now.step += 1

            validating = now.step % machine.validate_every == 0 or now.step == settings.steps
            if validating or now.step % every == 0:
                stop, broken = group.any(asked.stop, not bool(healthy))
            if broken:
                raise no_number(now)
            now.seconds = time.monotonic() - began
            if now.step % machine.log_every == 0 or validating:
                speed = (now.step - since[0]) * settings.batch * group.world / max(time.monotonic() - since[1], 1e-9)
                if group.rank == 0:
                    note(now, log, speed, validating, group, report)
                now.window.clear()
                since = (now.step, time.monotonic())
            late = time.monotonic() - written > 60.0 * machine.minutes
            if group.rank == 0 and (validating or stop or (late and bool(healthy))):
                save(now)
                written = time.monotonic()
            if stop and now.step < settings.steps:
                raise stopped(now)
    return now.validation


# --- the pieces of a step -------------------------------------------------------------------------------------------


def make_optimiser(stage: Stage) -> torch.optim.Optimizer:
    """AdamW over the stage's groups of parameters."""
    options = stage.config.optimiser
    groups = [{"params": list(g["params"]), "scale": float(g.get("scale", 1.0))} for g in stage.parameter_groups()]
    return torch.optim.AdamW(
        groups, stage.settings.rate, tuple(options.betas), weight_decay=options.weight_decay, fused=True
    )


def rate_at(settings: StageConfig, final: float, step: int) -> float:
    """Learning rate of a step: a straight rise, then half a cosine down to `final` of the highest."""
    rise = settings.warm_up * settings.steps
    if step < rise:
        return settings.rate * (step + 1) / (rise + 1)
    progress = (step - rise) / max(settings.steps - rise, 1)
    return settings.rate * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress)))


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, step: int, memory: float) -> None:
    """Move the running average towards the weights; its memory is short at first, so that the start is forgotten."""
    weight = 1.0 - min(memory, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), weight)
    for kept, buffer in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(buffer)


def add(window: dict[str, Any], scalars: dict[str, Tensor]) -> None:
    """Add one step to the sums since the last row of the log."""
    window["steps"] = window.get("steps", 0) + 1
    for name, value in scalars.items():
        window[name] = window.get(name, 0.0) + torch.as_tensor(value).detach().double()


# --- what is written ------------------------------------------------------------------------------------------------


def note(now: Run, log: CsvLog, speed: float, validating: bool, group: Group, report: Report | None) -> None:
    """A row of the log, with validation if it is time; the first process does this alone."""
    settings, options = now.stage.settings, now.stage.config.optimiser
    steps = now.window["steps"]
    means = {name: float(value) / steps for name, value in now.window.items() if name != "steps"}
    row: dict[str, Any] = {"step": now.step, "seconds": round(now.seconds, 3), **means}
    row |= {"rate": rate_at(settings, options.final, now.step - 1), "spectra_per_s": round(speed, 1)}
    if validating:
        now.validation = validate(now)
    figures = {f"validation {name}" if name in row else name: value for name, value in now.validation.items()}
    log.write({**row, **figures} if validating else row, [*row, *figures])
    if report is not None:
        left = (settings.steps - now.step) * settings.batch * group.world / speed
        progress = Progress(
            now.stage.name, now.step, settings.steps, means["loss"], speed, left, now.validation, validating
        )
        report(progress)


def validate(now: Run) -> dict[str, float]:
    """Figures of the averaged weights; the random numbers of the run are left as they were."""
    with torch.no_grad(), repeatable(now.stage.device):
        torch.manual_seed(mixed(now.stage.seed))
        return {name: float(value) for name, value in now.stage.validate(now.average).items()}


def save(now: Run) -> None:
    """Weights (if validated at this step, and so fit to use), then the state. A cut between the two repeats some steps."""
    if now.step % now.stage.config.run.validate_every == 0 or now.step == now.stage.settings.steps:
        write_weights(weights_path(now.folder, now.stage.name), now.stage.weights(now.average, card(now)))
    state = TrainingState(
        stage=now.stage.name,
        step=now.step,
        seconds=now.seconds,
        config=identity(now.stage),
        module=now.stage.module.state_dict(),
        average=now.average.state_dict(),
        optimiser=now.optimiser.state_dict()["state"],
        window={name: float(value) for name, value in now.window.items()},
        validation=now.validation,
    )
    write_state(now.state_path, state)
    now.saved = now.step


def identity(stage: Stage) -> dict[str, Any]:
    """What a run is known by when it is resumed."""
    return {**stage.config.as_dict(), "seed": stage.seed, "processes": stage.world}


def card(now: Run) -> dict[str, Any]:
    """What the weights say about this and the earlier stages."""
    previous = now.stage.previous
    stages = dict(previous.card.get("stages", {})) if previous is not None else {}
    stages[now.stage.name] = {
        "step": now.step,
        "steps": now.stage.settings.steps,
        "batch": now.stage.settings.batch,
        "processes": now.stage.world,
        "device": now.stage.device.type,
        "validation": now.validation,
        **provenance(now.stage.seed, now.seconds),
    }
    made = stages[now.stage.name]["time"][:10]
    summary = f"stages: {', '.join(stages)}"
    return {"made": made, "summary": summary, "stages": stages, "config": now.stage.config.as_dict()}


def restore(now: Run, resume: bool, group: Group) -> CsvLog | None:
    """Take up the state on disk, if there is one; the log of the first process.

    Raises
    ------
    UserError
        There is a state and it may not be used, or it belongs to other networks.
    """
    path, stage = now.state_path, now.stage
    if path.exists():
        if not resume:
            raise UserError(
                "there is a training run in this folder already", path, "add --resume to go on, or give another folder"
            )
        state = read_state(path)
        changed = differences(state.config, identity(stage))
        # Those of this stage and the ones before it; a setting that one side does not know yet is judged by the arrays.
        own = list(NETWORKS)[: {"decoder": 2, "prior": 3}.get(stage.name, len(NETWORKS))]
        networks = [name for name, pair in changed.items() if name.split(".")[0] in own and None not in pair]
        if networks:
            was, is_now = changed[networks[0]]
            raise UserError(
                f"the run was begun with {networks[0]} = {was}, not {is_now}",
                path,
                f"set it to {was}, or give another folder",
            )
        other = {k: v for k, v in changed.items() if k not in ("run.minutes", "run.log_every")}
        if other:
            text = ", ".join(f"{name} {was} -> {is_now}" for name, (was, is_now) in other.items())
            warnings.warn(f"{path}: goes on with other settings than it was begun with: {text}", DeepspecWarning, 3)
        load_module(stage.module, state.module, path)
        load_module(now.average, state.average, path)
        now.optimiser.load_state_dict({**now.optimiser.state_dict(), "state": state.optimiser})
        now.step, now.seconds, now.saved = state.step, state.seconds, state.step
        now.window, now.validation = dict(state.window), dict(state.validation)
    if group.rank != 0:
        return None
    sweep(path)
    return CsvLog(now.folder / f"{stage.name}.csv", now.step)


# --- how a run ends early -------------------------------------------------------------------------------------------


def stopped(now: Run) -> Interrupted:
    """The word for a run that was asked to stop."""
    steps = now.stage.settings.steps
    return Interrupted(
        f"stopped after step {now.step} of {steps} of stage {now.stage.name}; its state is in {now.state_path}",
        remedy="the same command with --resume goes on",
    )


def no_number(now: Run) -> UserError:
    """The word for a loss that is NaN or infinite; what was written before it stays."""
    name, lower = now.stage.name, f"{now.stage.settings.rate / 3:.1g}"
    problem = f"the loss or its gradient is no finite number any more at step {now.step}"
    if now.saved is None:
        return UserError(problem, f"stage {name}", f"lower the rate: --rate {lower}")
    return UserError(
        problem,
        f"stage {name}",
        f"the last good state is that of step {now.saved} in {now.state_path}; go on from it with --resume --rate {lower}",
    )
