"""Cameras from real responses: rebinning, backgrounds, folders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.learned.amortised import channel_shares
from deepspec.learned.grids import CENTRES, DETECTOR_EDGES, EDGES
from deepspec.training.camera_files import camera_from_response, from_folder, rebin_response
from deepspec.training.cameras import camera
from small_files import N_CHANNEL, N_ENERGY, small_response, small_spectrum, write_small


def narrow_response(**changes):
    """As the small observation's, with the resolution of a CCD."""
    response = small_response()
    middle = 0.5 * (response.edges[1:] + response.edges[:-1])
    matrix = np.exp(-0.5 * ((response.energy_bounds.mean(axis=1) - middle[:, None]) / 0.1) ** 2)
    return small_response(matrix=csr_matrix(matrix / matrix.sum(axis=1, keepdims=True)), **changes)


def on_grid(photons: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Photons per bin of `edges` of a spectrum that is uniform in ln E within the bins of `EDGES`."""
    cumulative = np.concatenate([[0.0], np.cumsum(photons)])
    return np.diff(np.interp(np.log(edges), np.log(EDGES), cumulative))


def test_rebinning_keeps_every_photon_and_its_counts():
    response = narrow_response()
    photons = CENTRES**-1.0
    counts = photons @ rebin_response(response)
    direct = (on_grid(photons, response.edges) * response.area) @ response.matrix.toarray()
    np.testing.assert_allclose(counts, direct @ channel_shares(response.energy_bounds), rtol=1e-10, atol=1e-9)
    # Channels from 0.42 to 9.98 keV lie in the band whole: their counts are all there
    inside = (response.energy_bounds[:, 0] > 0.3) & (response.energy_bounds[:, 1] < 10.0)
    assert direct[inside].sum() <= counts.sum() <= direct.sum()


def test_rows_beyond_the_grid_are_cut():
    response = narrow_response(edges=np.linspace(0.05, 20.0, N_ENERGY + 1))
    matrix = rebin_response(response)
    sums = response.area * np.asarray(response.matrix @ channel_shares(response.energy_bounds).sum(axis=1))
    inside = np.searchsorted(response.edges, CENTRES) - 1
    whole = np.searchsorted(response.edges, EDGES[1:]) == np.searchsorted(response.edges, EDGES[:-1])
    np.testing.assert_allclose(matrix.sum(axis=1)[whole], sums[inside][whole], rtol=1e-10)


def test_the_background_file_gives_the_shape_and_few_counts_borrow_one():
    response = narrow_response()
    middle = response.energy_bounds.mean(axis=1)
    step = np.where(middle < 2.0, 900.0, 100.0)
    many = camera_from_response("many", response, (small_spectrum(counts=step),), like="pn")
    density = many.background / np.diff(DETECTOR_EDGES)
    low, high = (np.interp(e, DETECTOR_EDGES[:-1], density) for e in (1.1, 4.0))
    assert low / high == pytest.approx(9.0, rel=0.25)
    none = camera_from_response("none", response, (), like="pn")
    one = camera_from_response("one", response, (small_spectrum(counts=np.eye(N_CHANNEL)[20]),), like="pn")
    typical = camera("pn").background * (none.background > 0)
    np.testing.assert_allclose(none.background, typical / typical.sum(), rtol=1e-10)
    # One count moves it, a little
    assert 0 < np.abs(one.background - none.background).max() < 0.2 * none.background.max()


def test_backgrounds_that_are_not_counts_are_left_alone():
    rates = small_spectrum(counts=np.full(N_CHANNEL, 0.5), error=np.full(N_CHANNEL, 0.1), use_errors=True)
    assert not rates.poisson
    made = camera_from_response("rates", narrow_response(), (rates,), like="pn")
    np.testing.assert_array_equal(
        made.background, camera_from_response("none", narrow_response(), (), like="pn").background
    )


def test_what_is_no_ccd_is_refused():
    with pytest.raises(UserError, match=r"resolution at 6 keV is worse than 0\.5 keV"):
        camera_from_response("wide", small_response())
    response = narrow_response()
    hard = narrow_response(area=np.where(response.edges[1:] > 20.0, 1.0, 0.0))
    with pytest.raises(UserError, match=r"no effective area in 0.3-10 keV"):
        camera_from_response("nothing", hard)


def test_a_folder_without_spectra_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder; give the folder of spectra"):
        from_folder(tmp_path / "absent")
    with pytest.raises(
        UserError, match="no spectrum with a response was found; give a folder of spectra with their ARF and RMF"
    ):
        from_folder(tmp_path)
    write_small(tmp_path)
    said = []
    with pytest.raises(UserError, match=r"was found \(.*worse than 0\.5 keV: no CCD"):
        from_folder(tmp_path, report=said.append)
    assert len(said) == 1


@pytest.mark.slow
def test_pipeline_products_with_canned_matrices(shared_data, tmp_path):
    for number in ("0007", "000E", "0001"):
        for file in (shared_data / "field_4xmm").glob(f"P*PN*SPEC{number}.FTZ"):
            shutil.copy(file, tmp_path)
        shutil.copy(next((shared_data / "field_4xmm").glob(f"P*PN*SRCARF{number}.FTZ")), tmp_path)
    said = []
    made = from_folder(tmp_path, rmf_dir=shared_data / "responses", report=said.append)
    # Source 0001 lies in another row of the detector, whose matrix is not at hand
    assert [each.name[-12:] for each in made] == ["SPEC0007.FTZ", "SPEC000E.FTZ"]
    assert len(said) == 1
    assert "is not there" in said[0]
    assert all(each.band == pytest.approx((0.3, 10.0), abs=0.1) for each in made)
    assert (made[0].area != made[1].area).any()
    assert (made[0].background != made[1].background).any()
    assert len(from_folder(tmp_path, rmf_dir=shared_data / "responses", most=1)) == 1
    with pytest.raises(UserError, match=r"not there, and others\); give a folder .* or set DEEPSPEC_RMF_DIR") as caught:
        from_folder(tmp_path)
    assert str(caught.value).count(";") == 1


SETS = ("pn_ngc7793_ulx4", "acis_3c273", "erosita_pks0447")


@pytest.mark.parametrize("name", SETS)
def test_real_cameras_predict_what_the_full_response_does(shared_data, name):
    folder = shared_data / "spectra" / name
    (made,) = from_folder(folder)
    observation = read_observation(next(folder.glob("src.pha*")))
    folded = observation.group("none").notice(0.01, 20.0).folded
    photons = CENTRES**-0.9 * np.exp(-0.05 * CENTRES**-2.5)
    bounds = observation.response.energy_bounds
    channels = on_grid(photons, folded.edges) @ folded.matrix / observation.spectrum.exposure
    noticed = observation.group("none").notice(0.01, 20.0).spectrum.noticed
    direct = channels @ channel_shares(bounds[noticed])
    used = made.area > 0
    assert used.sum() > 150
    # Photons from outside of .2-14 keV are missing in the one; 1 % of a bin, or of the mean one where there is little
    difference = np.abs(photons @ made.matrix - direct)[used]
    assert (difference < 0.01 * np.maximum(direct[used], direct[used].mean())).all()
    assert made.background.sum() == pytest.approx(1.0)
    assert (made.background[used] > 0).all()


@pytest.mark.slow
def test_a_real_folder_gives_each_response_once(shared_data, tmp_path):
    for copy in ("first", "second"):
        shutil.copytree(shared_data / "spectra" / "acis_3c273", tmp_path / copy)
    shutil.copytree(shared_data / "spectra" / "nustar_a_op313", tmp_path / "nustar")
    said = []
    made = from_folder(tmp_path, report=said.append)
    assert [c.name for c in made] == ["first/src.pha"]
    assert [sentence for sentence in said if "no CCD" in sentence] == said
    # ACIS by its header: fitted in .5-8 keV
    assert made[0].band == pytest.approx((0.5, 8.0), abs=0.06)


REAL = {
    "pn": ("pn_ngc7793_ulx4", 0.10),
    "mos": ("mos1_psrj0855", 0.10),
    "acis_s": ("acis_q1127", 0.10),
    "acis_i": ("acis_cdfs179", 0.15),
    "xrt": ("xrt_pc_op313", 0.12),
    "erosita": ("erosita_pks0447", 0.10),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_our_areas_resemble_the_real_ones(shared_data, name):
    folder, largest = REAL[name]
    response = read_observation(next((shared_data / "spectra" / folder).glob("src.pha*"))).response
    ours, real = camera(name), camera_from_response(folder, response, like=name)
    both = (ours.area > 0) & (real.area > 0)
    ratio = np.log(ours.area[both] / real.area[both])
    assert ratio.std() < largest
