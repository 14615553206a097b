"""Write a catalogue of random spectra, stream it in shuffled batches, and report time, size and peak memory of each.

    python benchmarks/dataset_memory.py [--spectra 100000] [--batch 256] [--batches 1000] [--folder FOLDER] [--quick]

Areas, counts and noise are like those of faint EPIC sources, so that the file is as large as a real one; writing and
streaming run in processes of their own, and one that only imports shows what the libraries take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK = 2048


def rows(first: int, count: int, matrices: int) -> dict[str, np.ndarray]:
    """Spectra `first` to `first` + `count`."""
    from deepspec.learned.grids import CENTRES, COUNT, DETECTOR_COUNT

    rng = np.random.default_rng([5, first])
    brightness = 10 ** rng.uniform(-0.2, 1.5, (count, 1))
    falling = np.exp(-np.linspace(0.0, 4.0, DETECTOR_COUNT))
    counts = rng.poisson(brightness * falling).astype("u4")
    background = rng.poisson(8.0 * falling + 2.0, (count, DETECTOR_COUNT)).astype("u4")
    area = 900.0 * np.exp(-0.5 * (np.log(CENTRES / 1.5)) ** 2)
    wiggle = rng.normal(0.0, 0.02, (count, 8)) @ np.cos(np.outer(np.arange(8), np.linspace(0, np.pi, COUNT)))
    names = [f"P0123456789PNS003SRSPEC{number:08d}" for number in range(first, first + count)]
    total = counts.sum(1)
    return {
        "counts": counts,
        "background": background,
        "valid": np.ones((count, DETECTOR_COUNT), "u1"),
        "ratio": rng.uniform(0.02, 0.2, count),
        "exposure": 10 ** rng.uniform(3.7, 5.0, count),
        "arf": (rng.uniform(0.3, 1.0, (count, 1)) * area * np.exp(wiggle)).astype("f4"),
        "rmf": rng.integers(0, matrices, count).astype("u2"),
        "total": total.astype("u4"),
        "net": total.astype("f4"),
        "split": rng.integers(0, 2**32, count, dtype="u4"),
        "name": np.array(names, dtype="S160"),
        "obsid": np.array([name[1:11] for name in names], dtype="S24"),
        "camera": np.full(count, b"pn", dtype="S16"),
        "exposure_id": np.full(count, b"S003", dtype="S8"),
        "number": np.arange(first, first + count, dtype="i4"),
        "source": np.array(names, dtype="S80"),
        "hashes": rng.integers(0, 256, (count, 3, 32), dtype="u1"),
    }


def matrices(count: int) -> list:
    """Gaussian redistributions, each a little wider than the last."""
    from deepspec.learned.grids import CENTRES, COUNT, DETECTOR_EDGES
    from deepspec.training.rebinning import Redistribution

    middle, width = 0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1]), np.diff(DETECTOR_EDGES)
    found = []
    for number in range(count):
        sigma = 0.04 * (1 + 0.01 * number) * np.sqrt(CENTRES)[:, None]
        matrix = np.exp(-0.5 * ((middle - CENTRES[:, None]) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)) * width
        ones = np.ones(COUNT, "f4")
        found.append(
            Redistribution(f"m{number}.rmf", f"{number:064x}", matrix.astype("f4"), ones, np.zeros(0, "i2"), 0)
        )
    return found


def write(path: Path, count: int) -> dict[str, float]:
    """A catalogue of `count` spectra and 40 matrices."""
    from deepspec.training.dataset_file import Writer

    writer = Writer(path, {"settings": {}})
    for first in range(0, count, BLOCK):
        writer.append(rows(first, min(BLOCK, count - first), 40))
    writer.close(matrices(40))
    return {"bytes": path.stat().st_size, "spectra": count}


def stream(path: Path, batch: int, batches: int, fold: bool) -> dict[str, float]:
    """Read `batches` batches in shuffled order, and fold a spectrum for each entry if `fold`."""
    import torch

    from deepspec.training.dataset import Dataset

    torch.set_num_threads(1)
    data = Dataset(path)
    data.at(0, batch, seed=1)
    shape = torch.ones(batch, 600) / 600
    for step in range(batches):
        found = data.at(step, batch, seed=1)
        if fold:
            data.fold(shape, found)
    return {"spectra": batch * batches}


def only_import(path: Path) -> dict[str, float]:
    """Nothing but what the others import."""
    import h5py  # noqa: F401
    import torch  # noqa: F401

    from deepspec.training import dataset  # noqa: F401

    return {}


def part(name: str, path: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run one part in this process and say what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    parts = {
        "import": lambda: only_import(path),
        "write": lambda: write(path, given.spectra),
        "stream": lambda: stream(path, given.batch, given.batches, False),
        "stream and fold": lambda: stream(path, given.batch, given.batches, True),
    }
    found = parts[name]()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {**found, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": memory}


def main() -> None:
    """Every part in a process of its own; a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the catalogue lies for a while")
    parser.add_argument("--quick", action="store_true", help="a thousand spectra: shows that it runs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(part(given.part, given.path, given)))
        return
    if given.quick:
        given.spectra, given.batches = 1000, 10
    print(f"{given.spectra} spectra, batches of {given.batch}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'part':<18}{'wall s':>9}{'cpu s':>9}{'MB peak':>9}{'spectra/s of cpu':>18}{'of wall':>10}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "catalogue.h5"
        own = ["--spectra", given.spectra, "--batch", given.batch, "--batches", given.batches, "--path", path]
        for name in ("import", "write", "stream", "stream and fold"):
            command = [sys.executable, __file__, *map(str, own), "--part", name]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(said.splitlines()[-1])
            rates = "".join(
                f"{row['spectra'] / row[k]:>{w}.0f}" for k, w in (("cpu", 18), ("wall", 10)) if "spectra" in row
            )
            print(f"{name:<18}{row['wall']:>9.1f}{row['cpu']:>9.1f}{row['memory']:>9.0f}{rates}")
        print(f"file: {path.stat().st_size / 1e6:.0f} MB, {path.stat().st_size / given.spectra:.0f} bytes a spectrum")


if __name__ == "__main__":
    main()
