"""Data sets and hypothesis strategies that the tests of statistics share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepspec.binned import BinnedData
from deepspec.statistics import STATISTICS

SIZE = 8
POISSON = ["cstat", "wstat", "pgstat"]
EVERY = list(STATISTICS)


def made(name, counts, background, ratio, error):
    """A statistic with the fields that it takes."""
    cls = STATISTICS[name]
    if name == "cstat":
        return cls.from_tensors(counts)
    if name == "pgstat":
        return cls.from_tensors(counts, background, ratio, background_error=error)
    return cls.from_tensors(counts, background, ratio)


def binned(counts, background=None, ratio=None, **more):
    """Data whose bins are 1 keV wide."""
    counts = np.asarray(counts, float)
    edges = np.arange(len(counts) + 1.0)
    if background is not None:
        background = np.asarray(background, float)
        ratio = np.broadcast_to(np.asarray(ratio, float), counts.shape)
    return BinnedData(counts, edges[:-1], edges[1:], np.ones(len(counts)), 1.0, background, ratio, **more)


few = arrays(float, SIZE, elements=st.integers(0, 6).map(float))
many = arrays(float, SIZE, elements=st.integers(0, 3000).map(float))
counts_of = st.one_of(few, many)
predicted = arrays(float, SIZE, elements=st.one_of(st.just(0.0), st.floats(1e-6, 1e-2), st.floats(1e-2, 3000.0)))
ratios = arrays(float, SIZE, elements=st.floats(1e-3, 4.0))
errors = arrays(float, SIZE, elements=st.one_of(st.just(0.0), st.floats(0.1, 30.0)))
