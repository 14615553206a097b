"""Where the time of a step of the noise-free stage goes, how it grows, and what one learned spectrum costs.

    python benchmarks/decoder_stage.py [--batch 256 512] [--threads 1] [--preset default] [--grow] [--weights default] [--quick]

Times of parts are CPU seconds, each the best of a few rounds; the speed of all together is taken by the clock on the wall, with the sources
drawn by a second thread as in training.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np
import torch
from clock import cpu

from deepspec.learned.grids import EDGES
from deepspec.learned.oracle import Oracle
from deepspec.training.config import TrainConfig, load_config
from deepspec.training.decoder_stage import DecoderStage
from deepspec.training.populations import draw


def prepared(config: TrainConfig, batch: int) -> DecoderStage:
    """The stage with random weights."""
    stage = DecoderStage(config.with_changes({"stage": {"decoder": {"batch": batch}}}))
    stage.batch(0)
    return stage


def parts(stage: DecoderStage, reuse: float, quick: bool) -> dict[str, float]:
    """CPU seconds of one step, in all and by part; forward and backward together."""
    module, batch, found = stage.module, stage.batch(1), {}
    size = len(batch["shape"])
    count = 256 if quick else 4096
    drawn = cpu(lambda: draw(count, torch.Generator().manual_seed(1)), quick) / count
    found["sources (each seen so often as configured)"] = drawn * size / reuse
    found["picking from the pool"] = cpu(lambda: stage.batch(1), quick)
    told = [batch[name] for name in ("shape", "log_counts", "log_nH", "absorbed")]
    oracle: Oracle = module.oracle
    found["oracle"] = cpu(lambda: sum(part.sum() for part in oracle(*told)).backward(), quick)
    z = batch["noise"].clone().requires_grad_()
    if hasattr(module.decoder, "trunk"):
        found["trunk"] = cpu(lambda: module.decoder.trunk(module.decoder.x).sum().backward(), quick)
        table = [part.detach() for part in module.decoder.table()]
        table = type(module.decoder.table())(*table)
    else:
        table = None
    found["branch and templates"] = cpu(lambda: module.decoder.log_density(z, table).sum().backward(), quick)
    density = module.decoder.log_density(z, table).detach().requires_grad_()
    found["folding and loss"] = cpu(lambda: module.misfit(density, batch).sum().backward(), quick)
    optimiser = torch.optim.AdamW(stage.parameter_groups(), 1e-9, fused=True)
    module(batch, 0)[0].backward()
    found["optimiser"] = cpu(optimiser.step, quick)

    def step() -> None:
        optimiser.zero_grad()
        module(batch, 0)[0].backward()
        optimiser.step()

    before = found["sources (each seen so often as configured)"] + found["picking from the pool"]
    return {"whole step": cpu(step, quick) + before, **found}


def wall_speed(stage: DecoderStage, steps: int) -> float:
    """Spectra per second of wall time, sources drawn beside."""
    optimiser = torch.optim.AdamW(stage.parameter_groups(), 1e-9, fused=True)
    first, began = 200, time.perf_counter()
    for step in range(first, first + steps):
        optimiser.zero_grad()
        stage.module(stage.batch(step), step)[0].backward()
        optimiser.step()
    return steps * stage.settings.batch / (time.perf_counter() - began)


def report(config: TrainConfig, batch: int, quick: bool, words: str) -> None:
    """A table for one setting."""
    stage = prepared(config, batch)
    found = parts(stage, config.populations.reuse, quick)
    total = found["whole step"]
    print(f"{words}: batch {batch}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for name, value in found.items():
        print(f"  {name:45s} {1e6 * value / batch:8.1f} us per spectrum {value / total:6.0%}")
    speed = wall_speed(stage, 2 if quick else 60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"  {batch / total:,.0f} spectra per CPU second, {speed:,.0f} per second of wall time now, peak memory {peak:.2f} GB so far"
    )
    stage.close()


def evaluations(name: str, quick: bool) -> None:
    """One spectrum on the bins of a pn-like response, in numpy; a batch of 64 with the gradient of a weighted sum, as the component has it."""
    from deepspec.learned.component import Deepspec
    from deepspec.learned.tabulated import tabulated_at
    from deepspec.models.base import Grid

    component, rng = Deepspec(name), np.random.default_rng(0)
    grids = {"grid of the templates": EDGES, "grid of a pn response": np.linspace(0.1, 15.0, 2981)}
    table, edges = tabulated_at(component.path), grids["grid of a pn response"]
    points = rng.standard_normal((64, table.latent))
    single = cpu(lambda: [table.flux(edges, point) for point in points], quick) / 64
    print(f"evaluation, {component.path.name}: {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print(f"  one spectrum on {len(edges) - 1} bins, numpy{1e6 * single:27.1f} us")
    values = {key: torch.as_tensor(points[:, [i]]) for i, key in enumerate(component.latents)}
    for words, edges in grids.items():
        grid, weights = Grid(edges), torch.as_tensor(rng.standard_normal((64, len(edges) - 1)))

        def gradient(grid: Grid = grid, weights: torch.Tensor = weights) -> None:
            component.pullback(grid, values, component.latents)[1](weights)

        print(f"  64 with a gradient, {words}, each{1e6 * cpu(gradient, quick) / 64:10.1f} us")


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--grow", action="store_true", help="also other numbers of templates and latent coordinates")
    parser.add_argument("--weights", help="also what one spectrum of these weights costs")
    parser.add_argument("--quick", action="store_true", help="each part once: shows that it runs, not how fast")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_config(preset=options.preset)
    for batch in options.batch:
        report(config, batch, options.quick, f"preset {options.preset}")
    growing = {
        "24 templates": {"templates": 24},
        "256 templates": {"templates": 256},
        "latent 2": {"latent": 2},
        "latent 24": {"latent": 24},
        "8 templates move": {"moving": 8},
        "perceptron": {"kind": "mlp", "branch": [192, 256, 256]},
    }
    for words, change in growing.items() if options.grow else ():
        report(config.with_changes({"decoder": change}), options.batch[-1], options.quick, words)
    if options.weights:
        evaluations(options.weights, options.quick)


if __name__ == "__main__":
    main()
