"""Catalogues of real spectra to train with, read by the chunk: memory does not grow with the catalogue.

`deepspec.training.catalogue_build` makes the files, `deepspec.training.dataset_file` says what is in them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepspec.errors import UserError
from deepspec.training import dataset_file
from deepspec.training.dataset_file import CHUNK, open_dataset, readable
from deepspec.training.rebinning import detector_means

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("training", "validation", "all")
POOL = 16
"""Chunks that are shuffled together: 4,096 spectra, about 20 MB."""
POOLS_KEPT = 2
READ = ("counts", "background", "valid", "ratio", "exposure", "arf", "rmf")
"""Columns that a batch is made of."""
ENCODER_KEYS = ("counts", "background", "ratio", "area", "valid")
"""Entries of a batch that make a `deepspec.learned.encoder.EncoderInput`."""


class Dataset:
    """A catalogue made by ``deepspec dataset build``.

    Parameters
    ----------
    path : str or Path
    validation : float
        Share of sources that is kept from training. A source is assigned by a hash of its name, so all its spectra lie on one
        side, and on the same side in every catalogue that holds it.
    pool : int
        Chunks of 256 spectra that are shuffled together.

    Raises
    ------
    UserError
        The file is missing, cut short, or no catalogue.
    """

    def __init__(self, path: str | Path, validation: float = 0.05, pool: int = POOL):
        if not 0 <= validation < 1:
            raise UserError(
                f"a share of {validation:g} cannot be kept for validation", remedy="choose at least 0, below 1"
            )
        self.path, self.validation, self.pool = Path(path), validation, pool
        self._file, self._process = None, None
        self._pools: OrderedDict[tuple, dict[str, np.ndarray]] = OrderedDict()
        self._matrices: dict = {}
        with readable(path):
            self._length = len(self._spectra["counts"])

    def __len__(self) -> int:
        """Number of spectra."""
        return self._length

    def __repr__(self) -> str:
        return f"<Dataset {self.path}: {len(self)} spectra>"

    def __getstate__(self) -> dict:
        # A worker opens the file for itself
        return {**self.__dict__, "_file": None, "_process": None, "_pools": OrderedDict(), "_matrices": {}}

    @property
    def file(self):
        """The open h5py file, one per process: HDF5 must not be shared across a fork."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = open_dataset(self.path), os.getpid()
        return self._file

    @property
    def _spectra(self):
        return self.file["spectra"]

    def close(self) -> None:
        """Close the file and forget what was read."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None
        self._pools.clear()

    @cached_property
    def about(self) -> dict:
        """Settings and origin."""
        return dataset_file.about(self.file)

    @cached_property
    def rejected(self) -> list[tuple[str, ...]]:
        """(name, path, reason, detail) of each spectrum that was left out."""
        with readable(self.path):
            return dataset_file.read_rejected(self.file)

    def column(self, name: str) -> np.ndarray:
        """A column of `dataset_file.COLUMNS` for all spectra; meant for the small ones."""
        with readable(self.path):
            return self._spectra[name][()]

    # --- responses --------------------------------------------------------------------------------------------------

    @cached_property
    def matrices(self) -> np.ndarray:
        """The shared matrices, shape (n_rmf, 600, 238) float32; 0.6 MB each."""
        with readable(self.path):
            return self.file["rmf/matrix"][()]

    @cached_property
    def rmf_names(self) -> list[str]:
        """File names of the shared matrices."""
        with readable(self.path):
            return [name.decode() for name in self.file["rmf/name"][()]]

    @cached_property
    def _detector_total(self) -> np.ndarray:
        """Row sums of the matrices, shape (n_rmf, 600): what the matrix loses, or adds as area."""
        with readable(self.path):
            return self.file["rmf/total"][()]

    # --- rows -------------------------------------------------------------------------------------------------------

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Spectra by their places, in the order asked for.

        Parameters
        ----------
        indices : sequence of int, shape (n,)

        Returns
        -------
        dict
            counts, background : (n, 238) float32; ratio, exposure : (n, 1) float32; area : (n, 238) float32, effective area
            relative to its largest value; valid : (n, 238) bool; arf : (n, 600) float32 [cm2]; rmf : (n,) int64, place in
            `matrices`; index : (n,) int64. Counts outside `valid` are zero.

        Raises
        ------
        UserError
            A place that is not there; a damaged file.
        """
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise UserError(f"holds {len(self)} spectra, no number {indices.max()}", source=self.path)
        order, back = np.unique(indices, return_inverse=True)
        with readable(self.path):
            # One read for each chunk that is touched; h5py's own lists of rows are far slower
            parts = [self._chunk(chunk, order[order // CHUNK == chunk]) for chunk in np.unique(order // CHUNK)]
            if not parts:
                parts = [{name: self._spectra[name][:0] for name in READ}]
        rows = {name: np.concatenate([part[name] for part in parts])[back] for name in READ}
        return self._ready(rows, indices)

    def _chunk(self, chunk: int, wanted: np.ndarray) -> dict[str, np.ndarray]:
        within = wanted - chunk * CHUNK
        return {name: self._spectra[name][chunk * CHUNK : (chunk + 1) * CHUNK][within] for name in READ}

    def _ready(self, rows: Mapping[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of the file as a batch."""
        arf, rmf = rows["arf"], rows["rmf"].astype(np.int64)
        area = np.ascontiguousarray((_means() @ (arf * self._detector_total[rmf]).T).T)
        largest = area.max(axis=1, keepdims=True, initial=0.0)
        return {
            "counts": rows["counts"].astype(np.float32),
            "background": rows["background"].astype(np.float32),
            "ratio": rows["ratio"].astype(np.float32)[:, None],
            "area": np.divide(area, largest, out=np.zeros_like(area), where=largest > 0),
            "valid": rows["valid"].astype(bool),
            "exposure": rows["exposure"].astype(np.float32)[:, None],
            "arf": arf,
            "rmf": rmf,
            "index": indices,
        }

    def fold(self, shape: Tensor, spectra: Mapping[str, object] | Sequence[int] | np.ndarray) -> Tensor:
        """Expected counts of photon spectra, each through the response of its own observation; differentiable.

        Parameters
        ----------
        shape : Tensor, shape (..., n, 600) [photon cm^-2 s^-1 per bin of EDGES]
        spectra : batch as `batch` or `at` returns it (arrays or tensors), or places of n spectra

        Returns
        -------
        Tensor, shape (..., n, 238) [count]
            In all bins, valid or not.
        """
        import torch

        batch = spectra if isinstance(spectra, Mapping) else self.batch(spectra)
        like = {"dtype": shape.dtype, "device": shape.device}
        exposed = shape * (torch.as_tensor(batch["arf"], **like) * torch.as_tensor(batch["exposure"], **like))
        rmf = torch.as_tensor(batch["rmf"], device=shape.device)
        order = torch.argsort(rmf, stable=True)
        found, count = torch.unique_consecutive(rmf[order], return_counts=True)
        groups = torch.split(exposed.index_select(-2, order), count.tolist(), dim=-2)
        folded = [rows @ self._matrix(int(at), **like) for at, rows in zip(found, groups, strict=True)]
        if not folded:
            return exposed.new_zeros(*exposed.shape[:-1], dataset_file.DETECTOR_COUNT)
        return torch.cat(folded, dim=-2).index_select(-2, torch.argsort(order))

    def _matrix(self, at: int, dtype, device) -> Tensor:
        import torch

        key = (at, dtype, device)
        if key not in self._matrices:
            self._matrices[key] = torch.as_tensor(self.matrices[at], dtype=dtype, device=device)
        return self._matrices[key]

    # --- who is kept for validation ---------------------------------------------------------------------------------

    def _picked(self, split: str, values: np.ndarray) -> np.ndarray:
        if split not in SPLITS:
            raise UserError(f"there is no part '{split}'", remedy=f"use {', '.join(SPLITS)}")
        if split == "all":
            return np.ones(len(values), dtype=bool)
        lowest = values < self.validation * 2.0**32
        return lowest if split == "validation" else ~lowest

    def places(self, split: str = "all") -> np.ndarray:
        """Places of the spectra for "training" or "validation", shape (n,) int64."""
        return np.flatnonzero(self._picked(split, self.column("split")))

    @cached_property
    def _chunk_counts(self) -> dict[str, np.ndarray]:
        """Spectra of each split in each chunk, shape (n_chunk,)."""
        values = self.column("split")
        starts = np.arange(0, len(values), CHUNK)
        return {s: np.add.reduceat(self._picked(s, values).astype(np.int64), starts) for s in SPLITS}

    def count(self, split: str = "training") -> int:
        """Spectra for "training" or "validation"."""
        self._picked(split, np.zeros(0))
        return int(self._chunk_counts[split].sum()) if len(self) else 0

    # --- streaming --------------------------------------------------------------------------------------------------

    def at(
        self, step: int, batch: int, seed: int, split: str = "training", rank: int = 0, world: int = 1
    ) -> dict[str, np.ndarray]:
        """The batch of a step: a pure function of the arguments, every spectrum once per pass.

        Each pass reads the chunks in another order, `pool` of them at a time, whose spectra are shuffled. Of `world`
        processes, each calls with its own `rank`.

        Returns
        -------
        dict
            As `batch`.

        Raises
        ------
        UserError
            There is no spectrum of this split; a damaged file.
        """
        total = self.count(split)
        if total == 0:
            raise UserError(f"holds no spectrum for {split}", source=self.path, remedy="choose another share")
        first, parts, left = (step * world + rank) * batch, [], batch
        while left:
            turn, position = divmod(first, total)
            order, ends = self._pass(seed, turn, split)
            pool = int(np.searchsorted(ends, position, side="right"))
            start = position - (int(ends[pool - 1]) if pool else 0)
            rows = self._pool(seed, turn, split, pool, order)
            taken = {name: values[start : start + left] for name, values in rows.items()}
            parts.append(taken)
            first, left = first + len(taken["index"]), left - len(taken["index"])
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._ready(rows, rows["index"])

    def batches(
        self, seed: int, batch: int, first: int = 0, split: str = "training", rank: int = 0, world: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """``at(step, ...)`` for step = `first`, `first` + 1, ... without end."""
        step = first
        while True:
            yield self.at(step, batch, seed, split, rank, world)
            step += 1

    def _pass(self, seed: int, turn: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Order of the chunks in a pass, and how many spectra its pools hold up to each one's end."""
        counts = self._chunk_counts[split]
        order = np.random.default_rng([seed, turn]).permutation(len(counts))
        return order, np.cumsum(np.add.reduceat(counts[order], np.arange(0, len(counts), self.pool)))

    def _pool(self, seed: int, turn: int, split: str, pool: int, order: np.ndarray) -> dict[str, np.ndarray]:
        """The shuffled spectra of one pool; the last few are kept."""
        key = (seed, turn, split, pool)
        if key in self._pools:
            self._pools.move_to_end(key)
            return self._pools[key]
        while len(self._pools) >= POOLS_KEPT:
            self._pools.popitem(last=False)
        parts = []
        with readable(self.path):
            for chunk in np.sort(order[pool * self.pool : (pool + 1) * self.pool]):
                rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
                keep = np.flatnonzero(self._picked(split, self._spectra["split"][rows]))
                if len(keep):
                    part = {name: self._spectra[name][rows][keep] for name in READ}
                    parts.append({**part, "index": keep + chunk * CHUNK})
        shuffled = np.random.default_rng([seed, turn, pool]).permutation(sum(len(p["index"]) for p in parts))
        # One column at a time, and its pieces go as it is made: the pool is held once
        rows = {name: np.concatenate([p.pop(name) for p in parts])[shuffled] for name in (*READ, "index")}
        self._pools[key] = rows
        return rows


@lru_cache(maxsize=1)
def _means():
    """The transpose of `detector_means`, sparse: a detector bin touches a few of the 600."""
    from scipy.sparse import csr_matrix

    return csr_matrix(detector_means().T.astype(np.float32))


def as_tensors(batch: Mapping[str, np.ndarray], device: str = "cpu") -> dict[str, Tensor]:
    """A batch as tensors on a device."""
    import torch

    return {name: torch.as_tensor(values, device=device) for name, values in batch.items()}


@dataclass(frozen=True)
class Facts:
    """What `deepspec dataset info` shows; see `describe`."""

    path: str
    spectra: int
    observations: int
    sources: int
    cameras: dict[str, int]
    matrices: dict[str, int]
    counts: dict[str, float]
    net: dict[str, float]
    exposure: dict[str, float]
    validation: int
    rejected: dict[str, int]
    settings: dict[str, object]
    made: dict[str, object]
    bytes: int


def describe(data: Dataset) -> Facts:
    """Numbers of spectra, observations, sources, cameras, matrices; ranges; what was rejected and why."""
    cameras, each = np.unique(data.column("camera"), return_counts=True)
    uses = np.bincount(data.column("rmf"), minlength=len(data.rmf_names))
    reasons, times = np.unique([row[2] for row in data.rejected], return_counts=True)
    made = {key: value for key, value in data.about.items() if key != "settings"}
    return Facts(
        path=str(data.path),
        spectra=len(data),
        observations=len(np.unique(data.column("obsid"))),
        sources=len(np.unique(data.column("source"))),
        cameras={name.decode(): int(count) for name, count in zip(cameras, each, strict=True)},
        matrices={name: int(count) for name, count in zip(data.rmf_names, uses, strict=True)},
        counts=_range(data.column("total")),
        net=_range(data.column("net")),
        exposure=_range(data.column("exposure")),
        validation=data.count("validation"),
        rejected={str(name): int(count) for name, count in zip(reasons, times, strict=True)},
        settings=data.about.get("settings", {}),
        made=made,
        bytes=data.path.stat().st_size,
    )


def _range(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}
