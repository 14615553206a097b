"""Pipeline products of our own making: the names of 4XMM, spectra of a few channels, a matrix that headers only name."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from small_files import rewrite, with_cards, write_small

RMF = "epn_small.rmf"


@cache
def contents(seed: int, scale: int = 1) -> tuple[bytes, bytes, bytes, bytes]:
    """Source, background, area, matrix files of an observation."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_small(folder, seed)
        if scale != 1:
            rewrite(
                folder / "src.pha", lambda hdus: hdus[1].data.__setitem__("COUNTS", hdus[1].data["COUNTS"] // scale)
            )
        cards = {"RESPFILE": RMF, "ANCRFILE": "none", "BACKFILE": "none"}
        rewrite(folder / "src.pha", with_cards(**cards))
        return tuple((folder / file).read_bytes() for file in ("src.pha", "src_bkg.pha", "src.arf", "src.rmf"))


def write_product(
    folder: Path, number: int, seed: int = 3, camera: str = "PN", scale: int = 1, obsid="0123456789"
) -> Path:
    """SRSPEC, BGSPEC and SRCARF of one source; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, content in zip(("SRSPEC", "BGSPEC", "SRCARF"), contents(seed, scale), strict=False):
        path = folder / f"P{obsid}{camera}S003{kind}{number:04X}.FTZ"
        path.write_bytes(gzip.compress(content, mtime=0))
        written.append(path)
    return written[0]


def write_matrix(folder: Path, name: str = RMF) -> Path:
    """The matrix that the headers name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(contents(3)[3])
    return folder / name


def random_rows(count: int, seed: int, matrices: int = 3) -> dict[str, np.ndarray]:
    """Rows of a catalogue that no instrument has seen, `count` of them."""
    from deepspec.learned.grids import COUNT, DETECTOR_COUNT

    rng = np.random.default_rng(seed)
    counts = rng.poisson(5.0, (count, DETECTOR_COUNT))
    names = np.array([f"S{seed}-{i}".encode() for i in range(count)], dtype="S160")
    return {
        "counts": counts.astype("u4"),
        "background": rng.poisson(2.0, (count, DETECTOR_COUNT)).astype("u4"),
        "valid": np.ones((count, DETECTOR_COUNT), "u1"),
        "ratio": np.full(count, 0.1),
        "exposure": rng.uniform(1e4, 1e5, count),
        "arf": (1000 * rng.uniform(0.5, 1, (count, 1)) * np.ones(COUNT)).astype("f4"),
        "rmf": rng.integers(0, matrices, count).astype("u2"),
        "total": counts.sum(1).astype("u4"),
        "net": counts.sum(1).astype("f4"),
        "split": rng.integers(0, 2**32, count, dtype="u4"),
        "name": names,
        "obsid": np.full(count, b"0123456789", dtype="S24"),
        "camera": np.full(count, b"pn", dtype="S16"),
        "exposure_id": np.full(count, b"S003", dtype="S8"),
        "number": np.arange(count, dtype="i4"),
        "source": names.astype("S80"),
        "hashes": rng.integers(0, 256, (count, 3, 32), dtype="u1"),
    }


def random_matrices(count: int = 3, seed: int = 1) -> list:
    """As many matrices with rows that sum to one."""
    from deepspec.learned.grids import COUNT, DETECTOR_COUNT
    from deepspec.training.rebinning import Redistribution

    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        matrix = rng.uniform(size=(COUNT, DETECTOR_COUNT)).astype("f4")
        matrix /= matrix.sum(1, keepdims=True)
        total = np.ones(COUNT, "f4")
        found.append(Redistribution(f"m{number}.rmf", f"{number:064x}", matrix, total, np.zeros(0, "i2"), 0))
    return found
