"""The learned component against nine classical models on real spectra.

    python benchmarks/real_spectra.py --weights FILE [--quick] [--data FOLDER] [--out FOLDER] [--page FILE]
    python benchmarks/real_spectra.py --weights FILE --only-learned --summary     # against kept classical fits, in a minute
    python benchmarks/real_spectra.py --classical-only                            # the panel alone

Classical fits are kept in the output folder by what they depend on (counts, response, model, limits, starts), so that another
file of weights costs its own fits only. Writes real_spectra.json and real_spectra.md there. The protocol is in panel.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from panel import PANEL, Bins, Case, Classical, as_vector, bins_of, cases, fit_classical, halves, problem_of
from real_tables import between, page, summary_text

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.inference.maximum import MaximumOptions
from deepspec.observation import Observation

ROOT = Path(__file__).resolve().parents[1]
STARTS = 16
#: For fits of half the counts, which begin at the best fit of all of them.
HALF = MaximumOptions(starts=4, draws=24)


class Kept:
    """Results on disk, each with the key of what it depends on.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, key: str) -> dict | None:
        """What was kept under a name, or None if it was made from something else."""
        path = self.folder / f"{name}.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return found["result"] if found.get("key") == key else None

    def put(self, name: str, key: str, result: dict) -> dict:
        """Keep a result, and give it back."""
        with write_beside(self.folder / f"{name}.json") as beside:
            beside.write_text(json.dumps({"key": key, "result": result}, indent=1))
        return result


def bins_kept(case: Case, out: Path) -> Bins:
    """The arrays of a spectrum, from the output folder if they are there: reading responses takes longer than a fit."""
    path = out / "bins" / f"{case.name}.npz"
    stamp = case.stamp()
    try:
        with np.load(path) as found:
            if str(found["stamp"]) == stamp:
                region = [found[k] if k in found else None for k in ("background", "ratio")]
                return Bins(found["counts"], *region, found["matrix"], found["sigma"], str(found["digest"]))
    except (OSError, KeyError, zipfile.BadZipFile):
        pass
    bins = bins_of(case.read())
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {k: v for k, v in bins.__dict__.items() if v is not None}
    with write_beside(path) as beside, open(beside, "wb") as stream:
        np.savez(stream, stamp=stamp, **fields)
    return bins


def key_of(bins: Bins, model: Classical, *more: object) -> str:
    """Changes when a fit of the panel would."""
    text = repr([bins.digest, model.text, sorted(model.links.items()), model.thaw, model.limits, *more])
    return hashlib.sha256(text.encode()).hexdigest()


class Classics:
    """Fits of the panel, kept on disk; the observation is read only if one is missing."""

    def __init__(self, out: Path, starts: int = STARTS, frozen: bool = False):
        self.kept, self.starts, self.frozen = Kept(out / "classical"), starts, frozen

    def read(self, case: Case) -> Observation:
        """The observation, for a fit that has to be made."""
        if self.frozen:
            raise UserError("a classical fit is missing", case.name, "run with --classical-only first")
        return case.read()

    def whole(self, case: Case, bins: Bins) -> dict[str, dict]:
        """Best fits of all models to all counts."""
        observation, found = None, {}
        for model in PANEL:
            name, key = f"{case.name}.{_plain(model.name)}", key_of(bins, model, self.starts)
            result = self.kept.get(name, key)
            if result is None:
                observation = observation or self.read(case)
                result = fit_classical(problem_of(observation, model), MaximumOptions(starts=self.starts))
                self.kept.put(name, key, result)
            found[model.name] = result
        return found

    def half(self, case: Case, bins: Bins, seed: int) -> dict[str, dict]:
        """Best fits to a random half of the counts, and the statistic of the other half there."""
        observation, found = None, {}
        whole = self.whole(case, bins)
        first, second = (bins.statistic(*half) for half in halves(bins, seed, case.name))
        for model in PANEL:
            name = f"half{seed}.{case.name}.{_plain(model.name)}"
            key = key_of(bins, model, self.starts, seed, asdict(HALF))
            result = self.kept.get(name, key)
            if result is None:
                observation = observation or self.read(case)
                problem = problem_of(observation, model, first)
                begin = problem.parameters.with_vector(as_vector(problem, whole[model.name]["values"]).tolist())
                result = fit_classical(problem.with_parameters(begin), HALF)
                theta = as_vector(problem, result["values"])
                with torch.no_grad():
                    result["score"] = float(problem.with_statistics([second]).statistic(theta))
                self.kept.put(name, key, result)
            found[model.name] = result
        return found

    def improve(self, case: Case, bins: Bins) -> dict[str, float]:
        """Fit again from twice the starts and another seed; keep what is better. Returns the gains above 0.01."""
        observation, gains = case.read(), {}
        for model, before in zip(PANEL, self.whole(case, bins).values(), strict=True):
            again = fit_classical(problem_of(observation, model), MaximumOptions(2 * self.starts, 192, seed=1))
            gain = before["statistic"] - again["statistic"]
            if gain > 0.01:
                gains[model.name] = gain
                self.kept.put(f"{case.name}.{_plain(model.name)}", key_of(bins, model, self.starts), again)
        return gains


def _plain(name: str) -> str:
    return name.replace("*", "x")


def aic(result: dict, statistic: str = "statistic") -> float:
    """Statistic plus twice the number of parameters."""
    return result[statistic] + 2.0 * result["free"]


def row_of(case: Case, bins: Bins, found: dict[str, dict]) -> dict:
    """What the tables need of a spectrum and its classical fits."""
    best = min(found, key=lambda name: found[name]["statistic"])
    ones = [model.name for model in PANEL[:5]]
    chosen = min(found, key=lambda name: aic(found[name]))
    return {
        "name": case.name,
        "camera": case.camera,
        "band": list(case.band),
        "counts": float(bins.counts.sum()),
        "net": bins.net,
        "bins": len(bins.counts),
        "statistic": bins.statistic_name,
        "outside": case.outside,
        "blemish": case.blemish,
        "prototype": case.prototype,
        "best": best,
        "best_value": found[best]["statistic"],
        "best_free": found[best]["free"],
        "best_values": found[best]["values"],
        "best_at_limit": found[best]["at_limit"],
        "best_one": min(found[name]["statistic"] for name in ones),
        "powerlaw": found["powerlaw"]["statistic"],
        "aic_model": chosen,
        "aic": aic(found[chosen]),
        "classical": {name: result["statistic"] for name, result in found.items()},
    }


def half_row(found: dict[str, dict]) -> dict:
    """The model that half the counts choose, and its score on the others."""
    chosen = min(found, key=lambda name: aic(found[name]))
    return {"model": chosen, "train": found[chosen]["statistic"], "score": found[chosen]["score"]}


def evaluate(given: argparse.Namespace, chosen: list[Case]) -> tuple[list[dict], dict]:
    """All rows, and facts on the run."""
    learned = None
    if given.weights:
        from learned_map import Learned

        learned = Learned(given.weights, starts=8 if given.quick else STARTS)
    classics = Classics(given.out, given.starts, given.only_learned)
    rows, started = [], time.perf_counter()
    splits = range(0 if given.only_learned and given.summary else given.seeds)
    # The panel first and whole: a missing fit must not end an evaluation halfway.
    for case in chosen:
        bins = bins_kept(case, given.out)
        if given.check_starts:
            print(case.name, classics.improve(case, bins), flush=True)
        row = row_of(case, bins, classics.whole(case, bins))
        row["halves"] = [half_row(classics.half(case, bins, seed)) for seed in splits]
        rows.append(row)
        if learned is None:
            print(line(row), flush=True)
    clock = time.process_time()
    for case, row in zip(chosen, rows, strict=True) if learned is not None else ():
        row |= learned.row(case, bins_kept(case, given.out), splits, row["halves"])
        if not given.summary:
            print(line(row), flush=True)
    spent = time.process_time() - clock
    facts = {
        "weights": None if learned is None else learned.facts,
        "seconds": round(time.perf_counter() - started, 1),
        "seconds_learned": round(spent, 1),
        "starts": given.starts,
        "seeds": given.seeds,
    }
    return rows, facts


def line(row: dict) -> str:
    """A row for the terminal."""
    text = f"{row['name']:24s} {row['counts']:9.0f} {row['bins']:4d} {row['best_value']:9.2f} {row['best']:26s}"
    if "learned" in row:
        text += f" {row['learned']:9.2f} {row['learned'] - row['best_value']:+8.2f}  |z|2 {row['prior']:6.1f} p {row['effective']:5.1f}"
    return text


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="file of weights, or the name of installed ones")
    parser.add_argument("--classical-only", action="store_true", help="the panel alone")
    parser.add_argument("--only-learned", action="store_true", help="refuse to make classical fits: kept ones only")
    parser.add_argument("--summary", action="store_true", help="print the summary, not every spectrum; no halves")
    parser.add_argument("--quick", action="store_true", help="half the starts of the learned fits")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these spectra")
    parser.add_argument("--seeds", type=int, default=1, help="random halves of every spectrum; 0 for none")
    parser.add_argument("--starts", type=int, default=STARTS, help="starts of the classical fits")
    parser.add_argument("--check-starts", action="store_true", help="fit the panel again from twice the starts")
    parser.add_argument("--data", type=Path, help="folder of real observations")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "real")
    parser.add_argument("--page", type=Path, help="also write the tables between the markers of this page")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    given = arguments(words)
    torch.set_num_threads(1)
    folder = given.data or Path(os.environ.get("DEEPSPEC_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "spectra").is_dir():
        raise UserError("holds no spectra", f"--data {folder}", "name the folder of real observations")
    if not (given.weights or given.classical_only):
        raise UserError("there are no weights to evaluate", "--weights", "name a file, or give --classical-only")
    rows, facts = evaluate(given, cases(folder, given.only))
    print(summary_text(rows, facts))
    for name, text in (("json", json.dumps({"facts": facts, "rows": rows}, indent=1)), ("md", page(rows, facts))):
        with write_beside(given.out / f"real_spectra.{name}") as beside:
            beside.write_text(text)
    if given.page:
        renewed = between(given.page.read_text(), "real-spectra", page(rows, facts))
        with write_beside(given.page) as beside:
            beside.write_text(renewed)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"real_spectra.py: {error}")
