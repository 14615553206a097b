"""The numpy spectrum: equal to torch, exact in its derivatives and its integrals, and fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.learned.bins import Bins
from deepspec.learned.checkpoint import read_weights
from deepspec.learned.grids import COUNT, EDGES, ENERGY_WEIGHTS, STEP
from deepspec.learned.modules import load_decoder
from deepspec.learned.tabulated import Tabulated, tabulated_at
from tests.learned.toy_weights import toy_weights

KINDS = {
    "log": {},
    "one latent": {"latent": 1},
    "odd": {"latent": 5},
    "no flow": {"flow": False},
    "mlp": {"kind": "mlp"},
    "moving": {"moving": 2},
    "both": {"combine": "both"},
    "both moving": {"combine": "both", "moving": 2},
    "linear": {"combine": "linear"},
    "linear moving": {"combine": "linear", "moving": 3},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return read_weights(toy_weights(tmp_path_factory.mktemp("weights")))


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_equals_torch(kind, tmp_path):
    found = read_weights(toy_weights(tmp_path, **KINDS[kind]))
    spectrum, module = Tabulated(found), load_decoder(found, dtype=torch.float64)
    # far out too: beyond the splines' tails
    z = torch.randn(6, found.latent, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2.5
    shape, slopes = spectrum.shape_and_slopes(z.numpy())
    with torch.no_grad():
        assert np.allclose(spectrum.shape(z.numpy()), module(z).numpy(), rtol=1e-10, atol=0.0)
    assert np.allclose(shape, spectrum.shape(z.numpy()), rtol=1e-12)
    # one point goes its own way through the flow
    for row, expected in zip(z.numpy(), shape, strict=True):
        assert np.allclose(spectrum.shape(row), expected, rtol=1e-10, atol=0.0)
    exact = torch.stack([torch.autograd.functional.jacobian(module, row) for row in z]).transpose(1, 2).numpy()
    assert np.allclose(slopes, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    assert np.allclose(shape @ ENERGY_WEIGHTS, 1.0, rtol=1e-12)


def test_wanted_slopes_are_some_of_all(weights):
    spectrum = Tabulated(weights)
    z = np.array([[0.3, -1.0, 0.5], [0.0, 0.0, 2.0]])
    _, every = spectrum.shape_and_slopes(z)
    _, some = spectrum.shape_and_slopes(z, [2, 0])
    assert np.allclose(some, every[:, [2, 0]], rtol=1e-13)


def test_leading_axes(weights):
    spectrum, edges = Tabulated(weights), np.geomspace(0.3, 10.0, 50)
    z = np.random.default_rng(0).standard_normal((2, 4, 3))
    flux, slopes = spectrum.flux_and_slopes(edges, z)
    assert flux.shape == (2, 4, 49)
    assert slopes.shape == (2, 4, 3, 49)
    assert np.allclose(flux[1, 2], spectrum.flux(edges, z[1, 2]), rtol=1e-11)


def fine_sums(shape: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Photons between neighbouring edges, from a running sum over twenty pieces of every step of ln E."""
    pieces = np.linspace(np.log(EDGES[0]), np.log(EDGES[-1]), 20 * COUNT + 1)
    running = np.concatenate([[0.0], np.cumsum(np.repeat(shape, 20) / 20.0)])
    return np.diff(np.interp(np.log(edges), pieces, running))


@settings(max_examples=40)
@given(
    ends=st.lists(st.floats(0.02, 40.0), min_size=2, max_size=30, unique=True).filter(
        lambda e: min(np.diff(sorted(e)) / sorted(e)[:-1]) > 1e-4
    ),
    seed=st.integers(0, 1000),
)
def test_any_bins_against_fine_sums(ends, seed):
    edges = np.sort(ends)
    shape = np.exp(np.random.default_rng(seed).standard_normal(COUNT))
    found = Bins(edges).sums(shape)
    expected = fine_sums(shape, edges)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-10 * shape.sum())
    inside = (edges[1:] > EDGES[0]) & (edges[:-1] < EDGES[-1])
    assert (found[inside] > 0).all()
    assert (found[~inside] == 0).all()


def test_the_own_grid_gives_the_spectrum_itself():
    shape = np.arange(1.0, COUNT + 1)
    assert np.allclose(Bins(EDGES).sums(shape), shape, rtol=1e-9)
    assert np.allclose(Bins(EDGES[::7]).sums(shape).sum(), shape[: 7 * (COUNT // 7)].sum(), rtol=1e-12)


@pytest.mark.parametrize(
    "edges", [np.arange(0.1, 12.0, 0.005), np.geomspace(0.05, 30.0, 40), np.array([1.0, 1.001, 9.0])]
)
def test_sparse_rows_are_the_same_matrix(edges):
    bins = Bins(edges)
    dense = np.zeros((len(bins), COUNT))
    starts, columns, values = bins.sparse()
    dense[np.repeat(np.arange(len(bins)), np.diff(starts)), columns] = values
    turned = np.zeros((COUNT, len(bins)))
    starts, columns, values = bins.sparse(transposed=True)
    turned[np.repeat(np.arange(COUNT), np.diff(starts)), columns] = values
    shape = np.random.default_rng(1).random((3, COUNT))
    assert np.allclose(shape @ dense.T, bins.sums(shape), rtol=1e-13)
    assert np.array_equal(dense.T, turned)


def test_changed_bins_in_the_same_memory_are_noticed(weights):
    spectrum, edges = Tabulated(weights), np.geomspace(0.3, 10.0, 20)
    first = spectrum.flux(edges, np.zeros(3))
    edges[1:-1] *= 1.05
    assert not np.allclose(spectrum.flux(edges, np.zeros(3)), first)
    assert np.allclose(spectrum.flux(edges, np.zeros(3)), Tabulated(weights).flux(edges.copy(), np.zeros(3)))


def test_halves_of_a_bin_add_up(weights):
    edges = np.geomspace(0.3, 10.0, 200)
    halves = np.sort(np.concatenate([edges, 0.5 * (edges[1:] + edges[:-1])]))
    spectrum, z = Tabulated(weights), np.array([1.0, -0.5, 0.2])
    assert np.allclose(spectrum.flux(halves, z).reshape(-1, 2).sum(-1), spectrum.flux(edges, z), rtol=1e-12)


def test_a_file_is_read_once_while_it_stays_the_same(tmp_path):
    path = toy_weights(tmp_path)
    first = tabulated_at(path)
    assert tabulated_at(path) is first
    toy_weights(tmp_path, seed=2)
    assert tabulated_at(path) is not first


def test_steps_are_what_the_grid_says():
    assert np.allclose(np.diff(np.log(EDGES)), STEP)
