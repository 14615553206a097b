"""Bias and scatter of band fluxes of best fits against the truth, per class of source and count level.

    python benchmarks/flux_bias.py [--weights default] [--counts 100 1000 10000] [--sources 500] [--known-nH]

Three ways to a flux, from the same simulated observations (camera "pn", known background):

- deepspec: the best fit (MAP) of tbabs*deepspec;
- the power law of index 1.7 that catalogues use: net counts in the band divided by those of a power law of unit flux behind the *true*
  foreground, band by band;
- the best by AIC of a panel of classical models under one tbabs, fitted to the same counts with the same engine.

nH is free in the first and the last (under the prior of the populations for deepspec, flat in its log from 1e-4 to 40 for the classical
models), or known with ``--known-nH``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from noisy_fits import Fitted, classical, fit, learned
from posteriors import BANDS, QUANTITIES, Observations, fluxes, observe
from simulated import CLASS_NAMES, Drawn, decoder_of, drawn, into_page, save, seen_by, table
from torch import Tensor

from deepspec.learned.grids import COUNT, DETECTOR_EDGES, energy_weights
from deepspec.training.acceptance import View
from deepspec.training.cameras import camera
from deepspec.training.populations.bench import bench

SEED = 5003
INDEX = 1.7
NOTHING = -9.0
"""log10 of a flux that is zero or negative."""
METHODS = ("deepspec", "power law 1.7", "best classical")


def of_fit(found: Fitted, view: View) -> Tensor:
    """log10 of the four fluxes, shape (B, 4)."""
    photons = torch.exp(found.log_photons - found.log_photons.amax(-1, keepdim=True))
    return fluxes(photons, found.log_nH, found.log_counts, view)


def best_classical(observed: Observations, view: View, log_nH: Tensor | None) -> tuple[Tensor, list[str]]:
    """log10 fluxes (B, 4) of the model with the lowest AIC, and its name."""
    models = classical()
    fits = [fit(model, observed.counts, observed.background, view, log_nH) for model in models]
    score = torch.stack([each.statistic + 2.0 * each.free for each in fits])
    chosen = score.argmin(0)
    values = torch.stack([of_fit(each, view) for each in fits])
    return values[chosen, torch.arange(len(chosen))], [models[i].name for i in chosen.tolist()]


def by_power_law(observed: Observations, view: View, log_nH: Tensor) -> Tensor:
    """log10 fluxes (B, 4) from net counts in each band and a power law of index 1.7 behind the true foreground."""
    shape = bench(COUNT).law(torch.tensor([INDEX])).double()
    absorbed = shape * torch.exp(-view.depth(log_nH))
    counts = absorbed @ view.matrix
    net = observed.counts - observed.background
    middle = torch.as_tensor(0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1]))
    found = []
    for spectrum in (shape.expand_as(absorbed), absorbed):
        for low, high in BANDS.values():
            inside = (middle > low) & (middle < high)
            scale = net[:, inside].sum(-1) / counts[:, inside].sum(-1)
            found.append(scale * (spectrum @ torch.as_tensor(energy_weights((low, high)))))
    value = torch.stack(found, -1)
    return torch.where(value > 0, torch.log10(value.clamp(min=1e-30)), torch.full_like(value, NOTHING))


def measured(options: argparse.Namespace) -> dict:
    """Figures of all count levels."""
    view, background = seen_by(options.camera), torch.as_tensor(camera(options.camera).background.copy())
    sources = drawn(options.sources, options.seed)
    model = learned(decoder_of(options.weights, flow=not options.no_flow))
    levels = {}
    for level in options.counts:
        generator = torch.Generator().manual_seed(options.seed + 1)
        observed = observe(sources.shape, sources.log_nH, view, background, level, generator)
        known = sources.log_nH if options.known_nH else None
        started = time.process_time()
        ours = of_fit(fit(model, observed.counts, observed.background, view, known), view)
        middle = time.process_time()
        theirs, names = best_classical(observed, view, known)
        seconds = {"deepspec": middle - started, "classical": time.process_time() - middle}
        law = by_power_law(observed, view, sources.log_nH)
        error = torch.stack([each - observed.truth[:, :4] for each in (ours, law, theirs)])
        levels[f"{level:g}"] = {
            "cpu_seconds": seconds,
            "chosen": {name: names.count(name) for name in dict.fromkeys(names)},
            "classes": figures(error, sources),
        }
    kept = {key: getattr(options, key) for key in ("weights", "sources", "known_nH", "no_flow", "camera", "seed")}
    return {"settings": kept, "levels": levels}


def figures(error: Tensor, sources: Drawn) -> dict:
    """Bias and scatter of errors (method, source, quantity) for all sources and each class."""
    groups = {"all": torch.ones_like(sources.label, dtype=torch.bool)}
    groups |= {name: sources.label == i for i, name in enumerate(CLASS_NAMES) if bool((sources.label == i).any())}
    found = {}
    for name, rows in groups.items():
        found[name] = {"sources": int(rows.sum())}
        for m, method in enumerate(METHODS):
            found[name][method] = {q: spread(error[m, rows, i]) for i, q in enumerate(QUANTITIES[:4])}
    return found


def spread(error: Tensor) -> dict[str, float]:
    """Median, half of the central 68 % and share beyond a factor of two."""
    low, middle, high = torch.quantile(error, torch.tensor([0.16, 0.5, 0.84], dtype=error.dtype)).tolist()
    return {"bias": middle, "scatter": 0.5 * (high - low), "far": float((error.abs() > 0.30103).double().mean())}


def overall(found: dict) -> str:
    """A row per count level and method: bias, scatter and share of errors above a factor of two."""
    rows = []
    for counts, level in found["levels"].items():
        for method in METHODS:
            each = [level["classes"]["all"][method][q] for q in QUANTITIES[:4]]
            cells = [f"{e['bias']:+.3f} ± {e['scatter']:.3f}, {100 * e['far']:.0f} %" for e in each]
            rows.append([f"{float(counts):,.0f}", method, *cells])
    return table(["counts", "flux from", *QUANTITIES[:4]], rows)


def by_class(found: dict, kind: str) -> str:
    """A row per count level and class: bias and scatter of both bands by each method."""
    chosen = [q for q in QUANTITIES[:4] if q.startswith(kind)]
    rows = []
    for counts, level in found["levels"].items():
        for name, figure in level["classes"].items():
            cells = [f"{figure[m][q]['bias']:+.3f} ± {figure[m][q]['scatter']:.3f}" for q in chosen for m in METHODS]
            rows.append([f"{float(counts):,.0f}", name, str(figure["sources"]), *cells])
    head = [f"{q.removeprefix(kind).strip()}: {m}" for q in chosen for m in METHODS]
    return table(["counts", "class", "sources", *head], rows)


def shown(found: dict) -> str:
    """All tables."""
    return "\n\n".join(
        [
            "log10 of fitted over true flux: median ± half of the central 68 %, share of errors beyond a factor of two:",
            overall(found),
            "The same by class, unabsorbed fluxes:",
            by_class(found, "unabsorbed"),
            "Absorbed fluxes:",
            by_class(found, "absorbed"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default", help="a file, or a name that deepspec knows")
    parser.add_argument("--counts", nargs="+", type=float, default=[100.0, 1000.0, 10000.0])
    parser.add_argument("--sources", type=int, default=500)
    parser.add_argument("--known-nH", dest="known_nH", action="store_true", help="hold nH at the true foreground")
    parser.add_argument("--no-flow", action="store_true", help="N(0,1) on the decoder's own latents")
    parser.add_argument("--camera", default="pn")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder of the JSON file")
    parser.add_argument("--page", type=Path, help="put the tables between the markers of this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(options)
    name = "flux bias with nH known" if options.known_nH else "flux bias"
    print(shown(found))
    for counts, level in found["levels"].items():
        print(f"{float(counts):g} counts: CPU s {level['cpu_seconds']}, chosen by AIC {level['chosen']}")
    save(options.out / f"{name.replace(' ', '-')}.json", found)
    if options.page:
        into_page(options.page, name, shown(found))


if __name__ == "__main__":
    main()
