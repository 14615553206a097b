"""How far decoders stay above the truth on held-out simulated sources, several files of weights in one table.

    python benchmarks/held_out.py --weights a.h5 b.h5 [-n 1000] [--fit-nH] [--page docs/calibration.md]

See `deepspec.training.acceptance` for what the figure is. The camera is "pn", the foreground nH of each source is drawn from its
prior and known to the fit, or fitted as well with ``--fit-nH``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from simulated import CLASS_NAMES, decoder_of, drawn, into_page, save, seen_by, table

from deepspec.training.acceptance import by_class, excess

SEED = 977
"""Of the held-out sources; training validates on others."""


def measured(options: argparse.Namespace) -> dict:
    """Figures of every file of weights."""
    sources, view = drawn(options.sources, options.seed), seen_by(options.camera)
    found = {}
    for path, name in zip(options.weights, named(options), strict=True):
        decoder = decoder_of(path, flow=not options.no_flow)
        started = time.process_time()
        result = excess(decoder, sources.shape, sources.log_nH, view, options.counts, fit_nH=options.fit_nH)
        levels = {
            f"{counts:g}": by_class(value, sources.label, CLASS_NAMES)
            for counts, value in zip(result.counts, result.value, strict=True)
        }
        found[name] = {
            "latent": decoder.latent,
            "flow": decoder.flow is not None,
            "levels": levels,
            "cpu_seconds": time.process_time() - started,
        }
    settings = {key: getattr(options, key) for key in ("sources", "seed", "camera", "fit_nH", "no_flow")}
    return {"settings": settings, "weights": found}


def named(options: argparse.Namespace) -> list[str]:
    """What the columns are called: the names given, or those of the files."""
    names = options.names or [Path(path).stem for path in options.weights]
    if len(set(names)) != len(options.weights):
        names = [str(path) for path in options.weights]
    return names


def shown(found: dict) -> str:
    """The table: a row per count level and class, median / mean of each file."""
    weights = found["weights"]
    first = next(iter(weights.values()))["levels"]
    rows = []
    for counts, classes in first.items():
        for name, figures in classes.items():
            cells = [each["levels"][counts][name] for each in weights.values()]
            rows.append(
                [f"{float(counts):,.0f}", name, str(figures["sources"])]
                + [f"{cell['median']:.2f} / {cell['mean']:.2f}" for cell in cells]
            )
    return table(["counts", "class", "sources", *weights], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["default"], help="files, or names that deepspec knows")
    parser.add_argument("--names", nargs="+", help="what to call them in the table")
    parser.add_argument("-n", "--sources", type=int, default=1000)
    parser.add_argument("--counts", nargs="+", type=float, default=[1e3, 1e4, 1e5])
    parser.add_argument("--camera", default="pn")
    parser.add_argument("--fit-nH", dest="fit_nH", action="store_true", help="fit nH too, under its prior")
    parser.add_argument("--no-flow", action="store_true", help="N(0,1) on the decoder's own latents")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--page", type=Path, help="put the table between the markers of this page")
    options = parser.parse_args()
    if options.names and len(options.names) != len(options.weights):
        parser.error("--names needs one name for each file of --weights")
    torch.set_num_threads(1)
    found = measured(options)
    text = shown(found)
    print(text)
    print("CPU seconds: " + ", ".join(f"{name} {each['cpu_seconds']:.1f}" for name, each in found["weights"].items()))
    if options.json:
        save(options.json, found)
    if options.page:
        into_page(options.page, "held out with nH fitted" if options.fit_nH else "held out", text)


if __name__ == "__main__":
    main()
