"""Several processes on one job: what `torchrun` tells them, and the few things they must agree on."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from deepspec.errors import UserError

PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for each other; the first one validates while the others wait."""


@dataclass(frozen=True)
class Group:
    """The processes of a run; a single one unless `torchrun` started several.

    Attributes
    ----------
    rank, world : number of this process, and of all
    device : where this process computes
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, its gradients averaged over the processes; all start from the weights of the first one."""
        if self.world == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true if it is for any process; all processes must ask at the same step."""
        if self.world == 1:
            return flags
        found = torch.tensor([float(f) for f in flags], device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(f) for f in found.tolist())

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def group(device: str = "auto") -> Iterator[Group]:
    """The processes of this run, joined while the block lasts.

    Parameters
    ----------
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...

    Raises
    ------
    UserError
        The device is absent, or unknown.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", rank)) if world > 1 else None
    chosen = find_device(device, local)
    if world == 1:
        yield Group(device=chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Group(rank, world, chosen)
    finally:
        dist.destroy_process_group()


def find_device(name: str = "auto", local: int | None = None) -> torch.device:
    """The device of that name; of several GPUs, process number `local` of this machine takes the one of its number.

    Raises
    ------
    UserError
        It is absent, or unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device '{name}'", "--device", "give auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(f"training does not run on '{name}'", "--device", "give auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UserError("no CUDA device is to be had here", "--device", "use --device cpu, or install torch for CUDA")
    number = device.index if device.index is not None else (local or 0)
    if number >= torch.cuda.device_count():
        raise UserError(
            f"there is no GPU number {number}; this machine has {torch.cuda.device_count()}",
            "--device",
            "start as many processes as there are GPUs, or give another number",
        )
    chosen = torch.device("cuda", number)
    torch.cuda.set_device(chosen)
    return chosen
