"""A stage that takes seconds: a small network learns a curve. Also a program to be killed, or started twice by `torchrun`.

python toy_stage.py FOLDER [--steps N] [--resume] [--wait SECONDS]
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

import deepspec.training.state as states
from deepspec.errors import UserError
from deepspec.learned.checkpoint import Weights
from deepspec.learned.decoder import DecoderConfig, build_decoder
from deepspec.learned.modules import section
from deepspec.training.config import TrainConfig
from deepspec.training.distributed import group
from deepspec.training.loop import run
from deepspec.training.stage import Stage, seeded

NETWORK = {"kind": "mlp", "latent": 2, "branch": [8]}


def toy_config(steps: int = 60, **run_settings) -> TrainConfig:
    """Few steps, a log of every step, a state at every validation."""
    plain = {
        "decoder": NETWORK,
        "run": {"log_every": 1, "validate_every": 20, **run_settings},
        "stage": {"decoder": {"steps": steps, "batch": 32, "rate": 0.01}},
    }
    return TrainConfig.from_dict(plain)


class Curve(nn.Module):
    """A decoder that is fitted to spectra it can make, with noise from the batch and, as a test, from torch's generator."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.decoder = build_decoder(config)
        self.mean = nn.Linear(2, 2)

    def forward(self, batch, step):
        z = self.mean(batch["x"]) + 0.01 * torch.randn_like(batch["x"])
        error = (self.decoder.log_density(z) - batch["y"]).square().mean()
        return error + batch["poison"], {"error": error}


class ToyStage(Stage):
    name = "decoder"
    #: Step at which the loss becomes this, to see it refused.
    poison: tuple[int, float] = (-1, 0.0)
    wait = 0.0

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed + 100 * self.rank)
            self.module = Curve(self.config.decoder)
        self.truth = torch.linspace(-1, 1, 600, device=self.device)

    def _made(self, generator):
        x = torch.randn(self.settings.batch, 2, generator=generator)
        return x, torch.sin(3 * self.truth + x[:, :1]) * x[:, 1:]

    def batch(self, step):
        time.sleep(self.wait)
        x, y = self._made(self.generator(step))
        return {"x": x, "y": y, "poison": torch.tensor(self.poison[1] if step == self.poison[0] else 0.0)}

    def validate(self, module):
        x, y = self._made(seeded("cpu", 99))
        error = (module.decoder.log_density(module.mean(x)) - y).square().mean().item()
        return {"rms": error**0.5, "loss": error, "two": 2.0}

    def weights(self, module, card):
        return Weights(decoder=section(module.decoder, self.config.decoder), card=card)


def losses(folder: Path) -> list[dict[str, str]]:
    """The log, but for its times."""
    with open(folder / "decoder.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if k not in ("seconds", "spectra_per_s")} for row in rows]


def dies_at(step: int):
    """A writer of tensors that kills its own process half-way through the state of that step."""
    put = states._put

    def half(group, tensors):
        put(group, tensors)
        if group.file.attrs["step"] == step and group.name == "/average":
            group.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    return half


def main(words) -> int:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--resume", action="store_true")
    options.add_argument("--wait", type=float, default=0.0)
    options.add_argument("--minutes", type=float, default=0.0)
    options.add_argument("--die", type=int)
    given = options.parse_args(words)
    torch.set_num_threads(1)
    config = toy_config(given.steps, minutes=given.minutes)
    if given.die is not None:
        states._put = dies_at(given.die)
    try:
        with group("cpu") as processes:
            stage = ToyStage(config, 0, processes.rank, processes.world)
            stage.wait = given.wait
            run(stage, given.folder, given.resume, group=processes)
            torch.save(stage.module.state_dict(), given.folder / f"rank{processes.rank}.pt")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
