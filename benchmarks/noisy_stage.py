"""Where the time of a step of the noisy stage goes: sources, simulation, encoder, decoder, folding, likelihood, optimiser.

python benchmarks/noisy_stage.py [--batch 128 512] [--threads 1] [--preset default] [--kind mlp] [--quick]

Random networks of the preset's sizes; times are CPU seconds, each the best of a few rounds.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from clock import cpu

from deepspec.learned.decoder import build_decoder
from deepspec.learned.encoder import parameter_count
from deepspec.learned.flow import build_flow
from deepspec.learned.modules import make_weights
from deepspec.training.config import TrainConfig, load_config
from deepspec.training.elbo import seen, through
from deepspec.training.encoder_stage import EncoderStage
from deepspec.training.likelihood import cash
from deepspec.training.populations import draw


def prepared(config: TrainConfig, batch: int) -> EncoderStage:
    """The stage on random networks, its pool of sources filled."""
    torch.manual_seed(0)
    config = config.with_changes({"stage": {"encoder": {"batch": batch}}, "populations": {"blocks": 2, "reuse": 10**6}})
    weights = make_weights(build_decoder(config.decoder), build_flow(config.prior))
    stage = EncoderStage(config, previous=weights)
    stage.batch(0)
    return stage


def parts(stage: EncoderStage, reuse: float, quick: bool) -> dict[str, float]:
    """CPU seconds of one step, in all and by part; forward and backward together."""
    module, batch, found = stage.module, stage.batch(1), {}
    size = len(batch["counts"])
    count = 256 if quick else 2048
    drawn = cpu(lambda: draw(count, torch.Generator().manual_seed(1)), quick) / count
    found["sources (each seen so often as configured)"] = drawn * size / reuse
    found["simulation"] = cpu(lambda: stage.batch(1), quick)
    point = module.answer(seen(batch)).draw(batch["noise"]).detach().requires_grad_()
    whole = module.answer(seen(batch))

    def encoder() -> None:
        answer = module.encoder(seen(batch))
        (answer.draw(batch["noise"]).sum() + answer.divergence().sum()).backward()

    def flow() -> None:
        module.decoder.inner(point[:, :-2]).sum().backward()

    inner = module.decoder.inner(point[:, :-2]).detach().requires_grad_()

    def decoder() -> None:
        module.decoder.decoder.log_density(inner, module.table()).sum().backward()

    photons = torch.rand(size, 600).requires_grad_()
    expected = (batch["expected"] * 1.01).requires_grad_()
    beneath = batch["expected_background"]

    def likelihood() -> None:
        cash(batch["counts"], expected + beneath, batch["expected"] + beneath).sum().backward()

    optimiser = torch.optim.AdamW(stage.parameter_groups(), 1e-9)
    (whole.mean.sum() + whole.tril.sum()).backward()
    found["encoder"] = cpu(encoder, quick)
    found["flow"] = cpu(flow, quick)
    found["decoder"] = cpu(decoder, quick)
    found["folding"] = cpu(lambda: through(photons, batch).sum().backward(), quick)
    found["likelihood"] = cpu(likelihood, quick)
    found["optimiser"] = cpu(optimiser.step, quick)

    def step() -> None:
        optimiser.zero_grad()
        module(batch, 0)[0].backward()
        optimiser.step()

    found["absorption, normalisation and the rest"] = 0.0
    total = cpu(step, quick) + found["simulation"] + found["sources (each seen so often as configured)"]
    found["absorption, normalisation and the rest"] = max(total - sum(found.values()), 0.0)
    return {"whole step": total, **found}


def wall_speed(stage: EncoderStage, steps: int) -> float:
    """Spectra per second of wall time."""
    optimiser = torch.optim.AdamW(stage.parameter_groups(), 1e-9)
    began = time.perf_counter()
    for step in range(steps):
        optimiser.zero_grad()
        stage.module(stage.batch(step), step)[0].backward()
        optimiser.step()
    return steps * stage.settings.batch / (time.perf_counter() - began)


def main() -> None:
    """Print a table for each size of batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--kind", choices=["mlp", "mixer"], default=None)
    parser.add_argument("--quick", action="store_true", help="each part once: shows that it runs, not how fast")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_config(preset=options.preset)
    if options.kind:
        config = config.with_changes({"encoder": {"kind": options.kind}})
    for size in options.batch:
        stage = prepared(config, size)
        found = parts(stage, config.populations.reuse, options.quick)
        total = found["whole step"]
        print(
            f"batch {size}, encoder {config.encoder.kind} of {parameter_count(stage.module.encoder):,} parameters, "
            f"{options.threads} threads, load {os.getloadavg()[0]:.1f}"
        )
        for name, value in found.items():
            print(f"  {name:45s} {1e6 * value / size:8.1f} us per spectrum {value / total:6.0%}")
        speed = wall_speed(stage, 2 if options.quick else 20)
        print(f"  {size / total:,.0f} spectra per CPU second, {speed:,.0f} per second of wall time now")
        stage.close()


if __name__ == "__main__":
    main()
