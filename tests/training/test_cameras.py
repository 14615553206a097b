"""The cameras of our own: areas, photons, resolution, backgrounds; and the bank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.learned.grids import CENTRES, COUNT, DETECTOR_COUNT, DETECTOR_EDGES, EDGES
from deepspec.training import camera_table, cameras
from deepspec.training.cameras import CAMERAS, CameraBank, camera, ideal, relatives

MIDDLES = 0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1])


def row_width(name: str, energy: float) -> float:
    """FWHM [eV] of the response to photons of one energy, on a grid of 1 eV."""
    fine = np.arange(energy - 0.6, energy + 0.6, 1e-3)
    row = cameras.redistribution(cameras.parameters(name), np.array([energy]), fine)[0]
    above = np.flatnonzero(row > 0.5 * row.max())
    return float(above[-1] - above[0] + 1)


@pytest.mark.parametrize(
    ("name", "energy", "published"),
    [
        # XMM-Newton Users' Handbook, EPIC: pn about 80 eV at 1 keV and 150 at 6.4, MOS about 70 and 150
        ("pn", 1.0, 80.0),
        ("pn", 6.4, 150.0),
        ("mos", 1.0, 70.0),
        ("mos", 6.4, 150.0),
        # Chandra Proposers' Observatory Guide, ACIS-S3: about 95 eV at 1.5 keV and 150 at 5.9
        ("acis_s", 1.49, 95.0),
        ("acis_s", 5.9, 150.0),
        # Predehl et al. 2021, A&A 647, A1, table 4: 77 eV at 1.49 keV and 138 at 6.4
        ("erosita", 1.49, 77.0),
        ("erosita", 6.4, 138.0),
    ],
)
def test_resolution_is_about_that_of_the_handbooks(name, energy, published):
    assert row_width(name, energy) == pytest.approx(published, rel=0.18)


@pytest.mark.parametrize("name", CAMERAS)
def test_the_parts_of_the_redistribution_add_up_to_every_photon(name):
    energy = np.geomspace(0.2, 14.0, 60)
    everywhere = cameras.redistribution(cameras.parameters(name), energy, np.array([-200.0, 0.0, 0.3, 10.0, 200.0]))
    assert (everywhere >= 0).all()
    np.testing.assert_allclose(everywhere.sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("name", CAMERAS)
def test_rows_hold_the_effective_area(name):
    made, of = camera(name), cameras.parameters(name)
    sums = made.matrix.sum(axis=1)
    area = cameras.effective_area(of, CENTRES)
    # No more counts than photons, and nearly all of them far from the ends of the band
    fine = np.geomspace(EDGES[0], EDGES[-1], 8 * COUNT + 1)
    largest = cameras.effective_area(of, np.sqrt(fine[1:] * fine[:-1])).reshape(COUNT, 8).max(axis=1)
    assert (sums <= largest * (1 + 1e-12)).all()
    middle = (CENTRES > 2.0 * made.band[0]) & (CENTRES < 0.8 * made.band[1])
    near_edge = np.min(np.abs(CENTRES[:, None] / np.array([e.energy for e in of.edges]) - 1), axis=1) < 0.02
    lost = 1.0 - sums / area
    assert np.abs(lost[middle & ~near_edge]).max() < 0.06


@pytest.mark.parametrize("name", CAMERAS)
def test_nothing_is_seen_outside_the_band(name):
    made = camera(name)
    outside = ~cameras.columns_of_band(made.band)
    for values in (made.matrix.T, made.area, made.background):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values[outside] == 0).all()
        assert (values[~outside] > 0).any(axis=-1).all()
    assert made.background.sum() == pytest.approx(1.0)
    assert made.band[0] in (0.3, 0.5)
    assert made.band[1] in (8.0, 10.0)


def test_peaks_lie_at_the_energy_of_the_photons():
    matrix = camera("pn").matrix
    for energy in (0.6, 1.0, 3.0, 6.4):
        row = matrix[np.searchsorted(EDGES, energy) - 1]
        assert DETECTOR_EDGES[row.argmax()] <= energy <= DETECTOR_EDGES[row.argmax() + 1] * 1.01
    escape = np.abs(MIDDLES - (6.4 - 1.740)).argmin()
    beside = matrix[np.searchsorted(EDGES, 6.4) - 1]
    assert beside[escape] > 3.0 * beside[escape - 6]


def test_backgrounds_show_the_lines_of_the_camera():
    background = camera("pn").background / np.diff(DETECTOR_EDGES)
    copper, beside = np.abs(MIDDLES - 8.04).argmin(), np.abs(MIDDLES - 9.3).argmin()
    assert background[copper] > 4.0 * background[beside]


def test_an_absorption_edge_takes_area_above_its_energy_only():
    of = cameras.parameters("mos")
    thicker = replace(of, edges=(*of.edges, camera_table.Edge(1.0, 0.5)))
    energy = np.array([0.5, 0.99, 1.01, 2.0])
    ratio = cameras.effective_area(thicker, energy) / cameras.effective_area(of, energy)
    np.testing.assert_allclose(ratio, [1.0, 1.0, np.exp(-0.5 * 1.01**-3), np.exp(-0.5 / 8)], rtol=1e-12)


@given(st.integers(1, COUNT))
def test_the_ideal_detector_counts_every_photon_with_its_energy(n):
    matrix = ideal(n)
    assert matrix.shape == (COUNT, n)
    # Mean of E over a bin that is uniform in ln E
    mean = np.diff(EDGES) / np.diff(np.log(EDGES))
    np.testing.assert_allclose(matrix.sum(axis=1), mean, rtol=1e-12)


def test_the_ideal_detector_has_each_photon_in_its_own_bin():
    matrix = ideal(150)
    np.testing.assert_array_equal(matrix.argmax(axis=1), np.arange(COUNT) // 4)
    assert np.count_nonzero(matrix > 1e-9) == COUNT
    with pytest.raises(ValueError, match="1 to 600"):
        ideal(0)


def test_relatives_resemble_and_differ():
    first, second = relatives("acis_s", 2)
    again, _ = relatives("acis_s", 2)
    other = relatives("acis_s", 1, seed=1)[0]
    np.testing.assert_array_equal(first.matrix, again.matrix)
    for one, two in ((first, second), (first, other), (first, camera("acis_s"))):
        used = (one.area > 0) & (two.area > 0)
        assert 0.005 < np.log(one.area[used] / two.area[used]).std() < 2.0
    assert first.band == camera("acis_s").band


def test_a_camera_cannot_have_the_wrong_shape():
    good = camera("pn")
    with pytest.raises(ValueError, match="area has shape"):
        replace(good, area=good.area[1:])
    with pytest.raises(ValueError, match="read-only"):
        good.matrix[0, 0] = 1.0


def test_an_unknown_camera_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="no camera 'acis-s'; did you mean acis_s"):
        camera("acis-s")
    with pytest.raises(UserError, match="no camera is given"):
        CameraBank([])


def test_a_bank_folds_each_run_through_its_camera():
    bank = CameraBank(["pn", camera("xrt"), "erosita"], dtype=torch.float64)
    assert (len(bank), bank.names) == (3, ("pn", "xrt", "erosita"))
    photons = torch.rand(2, 6, COUNT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    folded = bank.fold(photons, torch.tensor([2, 0, 2]))
    assert folded.shape == (2, 6, DETECTOR_COUNT)
    for spectrum, name in enumerate(["erosita", "erosita", "pn", "pn", "erosita", "erosita"]):
        direct = photons[:, spectrum].numpy() @ camera(name).matrix
        np.testing.assert_allclose(folded[:, spectrum].numpy(), direct, rtol=1e-12)
    assert CameraBank(["pn"]).matrix.dtype == torch.float32
    np.testing.assert_array_equal(bank.valid[2], camera("erosita").area > 0)
