"""Do intervals cover? Fluxes and nH of simulated sources against their posteriors under a file of weights.

    python benchmarks/coverage.py --closed                    # the sampler's own test: sources drawn from the decoder and its prior
    python benchmarks/coverage.py                             # sources drawn from the populations
    python benchmarks/coverage.py --no-flow                   # N(0,1) on the decoder's own latents, without the flow

Each source is seen once at each count level by the camera "pn" behind a foreground of known distribution, with a known background.
Posteriors come from tempered Monte Carlo (`deepspec.inference.smc`); figures of sources from the populations mean something only at count
levels where the closed test passes. Truths that a posterior puts at a quantile below or above the interval's count as missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from posteriors import QUANTITIES, observe, posteriors
from simulated import CLASS_NAMES, Drawn, decoder_of, drawn, into_page, save, seen_by, table
from torch import Tensor

from deepspec.inference.smc import TemperOptions
from deepspec.training.cameras import camera
from deepspec.training.foreground import draw_log_nH

LEVELS = (0.68, 0.95)
SEED = 4001
REMEMBERED = 0.2
"""Correlation with the start, after the last moves, above which a posterior is counted as not well mixed."""
BINS = 12
"""Of the histograms of ranks."""
FEW = 5
"""Classes with fewer sources are not listed."""


def sources_of(options: argparse.Namespace, decoder: torch.nn.Module) -> Drawn:
    """From the populations, or from the decoder and its prior."""
    if not options.closed:
        return drawn(options.sources, options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        shape = decoder(torch.randn((options.sources, decoder.latent), generator=generator)).double()
    label = torch.zeros(options.sources, dtype=torch.int64)
    return Drawn(shape, label, draw_log_nH(options.sources, generator).double())


def measured(options: argparse.Namespace) -> dict:
    """Figures of all count levels."""
    decoder, view = decoder_of(options.weights, flow=not options.no_flow), seen_by(options.camera)
    sources = sources_of(options, decoder)
    background = torch.as_tensor(camera(options.camera).background.copy())
    settings = TemperOptions(particles=options.particles, seed=options.seed)
    names = ("all",) if options.closed else CLASS_NAMES
    found = {}
    for level in options.counts:
        generator = torch.Generator().manual_seed(options.seed + 1)
        observed = observe(sources.shape, sources.log_nH, view, background, level, generator)
        started, done, parts, work = time.process_time(), 0, [], []
        for values, draws in posteriors(decoder, view, observed, settings):
            parts.append(_compared(values, observed.truth[done : done + len(values)]))
            work.append(torch.stack([draws.moves.double(), draws.correlation.double(), draws.acceptance.double()], -1))
            done += len(values)
            print(f"\r{level:g} counts: {done} of {len(observed)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        work = torch.cat(work)
        rank, error, width = (torch.cat([part[i] for part in parts]) for i in range(3))
        found[f"{level:g}"] = {
            "cpu_seconds_per_posterior": (time.process_time() - started) / len(observed),
            "sampler": {
                **dict(zip(("moves", "correlation", "acceptance"), work.mean(0).tolist(), strict=True)),
                "remembering": float((work[:, 1] > REMEMBERED).double().mean()),
            },
            "classes": {
                name: summary(rank[rows], error[rows], width[rows])
                for name, rows in groups(sources.label, names).items()
            },
            "ranks": {
                quantity: torch.histc(rank[:, i], BINS, 0.0, 1.0).int().tolist()
                for i, quantity in enumerate(QUANTITIES)
            },
        }
    kept = {key: getattr(options, key) for key in ("weights", "sources", "closed", "no_flow", "camera", "particles")}
    return {"settings": {**kept, "seed": options.seed}, "levels": found}


def _compared(values: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rank of the truth, error of the median and half the width of the 68 % interval, each (p, 5), of values (p, N, 5)."""
    rank = (values < truth.unsqueeze(1)).double().mean(1)
    low, middle, high = torch.quantile(values, torch.tensor([0.16, 0.5, 0.84], dtype=values.dtype), dim=1)
    return rank, middle - truth, 0.5 * (high - low)


def groups(label: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Rows of all sources and of each class with enough of them."""
    found = {"all": torch.ones_like(label, dtype=torch.bool)}
    for i, name in enumerate(names):
        if name != "all" and int((label == i).sum()) >= FEW:
            found[name] = label == i
    return found


def summary(rank: Tensor, error: Tensor, width: Tensor) -> dict:
    """Coverage and errors [dex] per quantity."""
    found = {"sources": len(rank)}
    for i, quantity in enumerate(QUANTITIES):
        found[quantity] = {
            **{f"{level:g}": covered(rank[:, i], level) for level in LEVELS},
            "median_error": float(error[:, i].median()),
            "rms_error": float(error[:, i].square().mean().sqrt()),
            "median_width": float(width[:, i].median()),
        }
    return found


def covered(rank: Tensor, level: float) -> float:
    """Share of the truths inside the central interval."""
    return float(((rank > 0.5 - 0.5 * level) & (rank < 0.5 + 0.5 * level)).double().mean())


def binomial(level: float, sources: int) -> float:
    """Error of a share where it should be `level`."""
    return math.sqrt(level * (1.0 - level) / sources)


def overall(found: dict) -> str:
    """The table of all sources together."""
    rows = []
    for counts, figures in found["levels"].items():
        whole = figures["classes"]["all"]
        cells = [f"{whole[q]['0.68']:.2f} ({whole[q]['0.95']:.2f})" for q in QUANTITIES]
        errors = [f"{binomial(level, whole['sources']):.2f}" for level in LEVELS]
        rows.append([f"{float(counts):,.0f}", str(whole["sources"]), *cells, f"{errors[0]} ({errors[1]})"])
    return table(["counts", "sources", *QUANTITIES, "binomial error"], rows)


def by_class(found: dict) -> str:
    """Coverage of each class, with the median error in dex; what is two binomial errors off is in bold."""
    rows = []
    for counts, figures in found["levels"].items():
        for name, figure in figures["classes"].items():
            cells = []
            for quantity in QUANTITIES:
                share, error = figure[quantity]["0.68"], figure[quantity]["median_error"]
                off = abs(share - 0.68) > 2.0 * binomial(0.68, figure["sources"])
                cells.append(f"{'**' if off else ''}{share:.2f}{'**' if off else ''}, {error:+.3f}")
            rows.append([f"{float(counts):,.0f}", name, str(figure["sources"]), *cells])
    return table(["counts", "class", "sources", *QUANTITIES], rows)


def accuracy(found: dict) -> str:
    """Rms error of the posterior's median and median half width of the 68 % interval [dex]."""
    rows = []
    for counts, figures in found["levels"].items():
        whole = figures["classes"]["all"]
        cells = [f"{whole[q]['rms_error']:.3f}, {whole[q]['median_width']:.3f}" for q in QUANTITIES]
        cells += [f"{100 * figures['sampler']['remembering']:.0f} %", f"{figures['cpu_seconds_per_posterior']:.2f}"]
        rows.append([f"{float(counts):,.0f}", *cells])
    return table(["counts", *QUANTITIES, "not well mixed", "CPU s each"], rows)


def shown(found: dict) -> str:
    """All tables of one run."""
    parts = ["Covered by 68 % (95 %) intervals:", overall(found)]
    if not found["settings"]["closed"]:
        parts += [
            "By class: covered by 68 % intervals, median error [dex]; bold where two binomial errors from .68:",
            by_class(found),
        ]
    parts += [
        "Rms error of the posterior median, half width of the 68 % interval [dex]; share of the posteriors whose particles "
        f"still correlate more than {REMEMBERED} with where they were when the bound on moves was reached:",
        accuracy(found),
    ]
    return "\n\n".join(parts)


def variant(options: argparse.Namespace) -> str:
    """What the run is called in file names and markers."""
    return " ".join(["coverage", *["closed"] * options.closed, *["no flow"] * options.no_flow])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default", help="a file, or a name that deepspec knows")
    parser.add_argument("--counts", nargs="+", type=float, default=[300.0, 3000.0])
    parser.add_argument("--sources", type=int, default=300)
    parser.add_argument("--closed", action="store_true", help="sources from the decoder and its prior")
    parser.add_argument("--no-flow", action="store_true", help="N(0,1) on the decoder's own latents")
    parser.add_argument("--camera", default="pn")
    parser.add_argument("--particles", type=int, default=512)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder of the JSON file")
    parser.add_argument("--page", type=Path, help="put the tables between the markers of this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, name = measured(options), variant(options)
    print(shown(found))
    save(options.out / f"{name.replace(' ', '-')}.json", found)
    if options.page:
        into_page(options.page, name, shown(found))


if __name__ == "__main__":
    main()
