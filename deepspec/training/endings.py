"""How a run ends early: someone asks it to stop, memory runs out, another run holds the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from deepspec.errors import UserError
from deepspec.files import writing_failed
from deepspec.training.distributed import Group
from deepspec.training.stage import Stage


class Interrupted(UserError):
    """The run was asked to stop and has written its state."""

    exit_code = 130


@contextlib.contextmanager
def clear_words(stage: Stage) -> Iterator[None]:
    """Say which setting to lower when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # running out of GPU memory is a RuntimeError
        if not isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) and _CPU_MEMORY not in str(error):
            raise
        batch, place = stage.settings.batch, " on the GPU" if stage.device.type == "cuda" else ""
        raise UserError(
            f"too little memory{place} for batch = {batch}",
            f"[stage.{stage.name}] batch",
            f"lower it: --set stage.{stage.name}.batch={max(batch // 2, 1)}",
        ) from error


_CPU_MEMORY = "DefaultCPUAllocator"
"""What torch says when the machine's own memory runs out has this name in it, and no class of its own."""


def compiled(module: nn.Module) -> nn.Module:
    """`module`, compiled by torch when it is first called.

    Raises
    ------
    UserError
        There is no C++ compiler.
    """
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else ["g++", "clang++", "c++"])):
        raise UserError(
            "torch.compile needs a C++ compiler and finds none",
            "[run] compile",
            "install g++, or --set run.compile=false",
        )
    return torch.compile(module)


class Asked:
    """Whether someone asked to stop."""

    stop = False

    def __call__(self, number: int, frame: object) -> None:
        if self.stop and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self.stop = True


@contextlib.contextmanager
def signals() -> Iterator[Asked]:
    """Ctrl-C and SIGTERM set a flag while the block lasts; a second Ctrl-C ends the program at once."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Torch's generators are put back as they were when the block ends."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def make_folder(folder: Path) -> None:
    """Make the folder of a run, and those above it.

    Raises
    ------
    UserError
        It may not be made, or there is a file of that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError("is a file, not a folder", folder, "give another folder") from error
    except OSError as error:
        raise writing_failed(error, folder) from error


@contextlib.contextmanager
def only_run(folder: Path, group: Group) -> Iterator[None]:
    """No second run writes to the folder while the block lasts; the system forgets the lock with the process."""
    if group.rank != 0:
        yield
        return
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                "another training run is writing to this folder", folder, "wait for it, or give another folder"
            ) from error
        yield
    finally:
        os.close(handle)
