"""Files we write: the same when read back, by us and by Sherpa, with the keywords of the OGIP conventions."""

from __future__ import annotations

import os

import numpy as np
import pytest
from astropy.io import fits

from deepspec.errors import UserError
from deepspec.io import read_observation, read_response
from deepspec.io.fits_files import quiet
from deepspec.io.write import write_arf, write_pha, write_rmf
from small_files import N_CHANNEL, small_observation, small_response, small_spectrum, write_small


@pytest.fixture
def path(tmp_path):
    return write_small(tmp_path)


def test_all_comes_back(path):
    again, expected = read_observation(path), small_observation()
    assert np.array_equal(again.spectrum.counts, expected.spectrum.counts)
    assert np.array_equal(again.response.edges, expected.response.edges)
    assert np.array_equal(again.response.area, expected.response.area)
    assert np.array_equal(again.response.energy_bounds, expected.response.energy_bounds)
    assert abs(again.response.matrix - expected.response.matrix).max() <= 6e-8
    assert again.folded.matrix == pytest.approx(expected.folded.matrix, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("first", [0, 1])
def test_first_channel_is_kept(tmp_path, first):
    response = small_response(first_channel=first)
    again = read_response(write_rmf(tmp_path / "a.rmf", response), "none")
    assert again.first_channel == first
    assert abs(again.matrix - response.matrix).max() <= 6e-8


def test_rows_with_several_groups_and_with_none(tmp_path):
    matrix = small_response().matrix.toarray()
    matrix[10, 40] = 0.1
    matrix[10, 60] = 0.2
    matrix[5] = 0.0
    from scipy.sparse import csr_matrix

    again = read_response(write_rmf(tmp_path / "a.rmf", small_response(matrix=csr_matrix(matrix))), "none")
    assert np.abs(again.matrix.toarray() - matrix).max() <= 6e-8
    with fits.open(tmp_path / "a.rmf") as hdus:
        assert hdus["MATRIX"].data["N_GRP"][10] == 3
        assert hdus["MATRIX"].data["N_GRP"][5] == 0


def test_threshold_leaves_small_elements_out(tmp_path):
    again = read_response(write_rmf(tmp_path / "a.rmf", small_response(), threshold=1e-3), "none")
    assert again.matrix.data.min() > 1e-3
    assert again.matrix.nnz < small_response().matrix.nnz


def test_sherpa_folds_our_files_as_we_do(path):
    with quiet():
        from sherpa.astro.instrument import Response1D
        from sherpa.astro.io import read_pha
        from sherpa.models.basic import PowLaw1D

        pha, model = read_pha(str(path)), PowLaw1D("power")
        pha.set_analysis("energy")
        pha.notice(1.0, 6.0)
        expected, counts = pha.eval_model_to_fit(Response1D(pha)(model)), pha.to_fit()[0]
        background = pha.get_background(1).counts
    observation = read_observation(path).notice(1.0, 6.0)
    folded = observation.folded
    assert model(folded.edges[:-1], folded.edges[1:]) @ folded.matrix == pytest.approx(expected, rel=1e-12)
    assert np.array_equal(observation.binned.counts, counts)
    assert np.array_equal(observation.spectrum.background, background)


def test_keywords_of_the_convention(path):
    with fits.open(path) as hdus:
        header = hdus["SPECTRUM"].header
        expected = {
            "HDUCLASS": "OGIP",
            "HDUCLAS1": "SPECTRUM",
            "HDUCLAS2": "TOTAL",
            "HDUCLAS3": "COUNT",
            "TELESCOP": "SMALL",
            "CHANTYPE": "PI",
            "DETCHANS": N_CHANNEL,
            "POISSERR": True,
            "EXPOSURE": 1000.0,
            "BACKSCAL": 0.01,
            "AREASCAL": 1.0,
            "RESPFILE": "src.rmf",
            "ANCRFILE": "src.arf",
            "BACKFILE": "src_bkg.pha",
            "TLMIN1": 1,
            "TLMAX1": N_CHANNEL,
        }
        assert {key: header[key] for key in expected} == expected
        hdus.verify("exception")
    with fits.open(path.with_name("src.rmf")) as hdus:
        assert hdus["MATRIX"].header["HDUCLAS2"] == "RSP_MATRIX"
        assert hdus["MATRIX"].header["TLMIN4"] == 1
        assert hdus["EBOUNDS"].header["HDUCLAS2"] == "EBOUNDS"
        hdus.verify("exception")
    with fits.open(path.with_name("src.arf")) as hdus:
        assert hdus["SPECRESP"].header["HDUCLAS2"] == "SPECRESP"
        assert hdus["SPECRESP"].columns["SPECRESP"].unit == "cm**2"


def test_links_lead_from_another_folder(path, tmp_path):
    like = read_observation(path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").mkdir()
    fake = tmp_path / "runs" / "one" / "fake.pha.gz"
    written = write_pha(fake, like.spectrum.counts, like=like, exposure=500.0, background=path.with_name("src_bkg.pha"))
    assert written == (fake,)
    again = read_observation(fake)
    assert again.spectrum.exposure == 500.0
    assert again.spectrum.backgrounds[0].sha256 == like.spectrum.backgrounds[0].sha256
    with fits.open(fake) as hdus:
        assert not os.path.isabs(hdus[1].header["RESPFILE"])


def test_background_counts_go_beside(path, tmp_path):
    like = read_observation(path)
    counts = np.arange(N_CHANNEL)
    written = write_pha(tmp_path / "fake.pha", counts, like=like, background=counts + 1, header={"SEED": 7})
    assert [p.name for p in written] == ["fake.pha", "fake_bkg.pha"]
    again = read_observation(tmp_path / "fake.pha")
    assert np.array_equal(again.spectrum.background, counts + 1)
    assert again.spectrum.ratio == pytest.approx(0.25)
    assert fits.getheader(tmp_path / "fake.pha", 1)["SEED"] == 7


def test_columns_quality_and_grouping_come_back(path, tmp_path):
    like = read_observation(path)
    flags = np.where(np.arange(N_CHANNEL) % 4 == 0, 1, -1)
    quality = np.where(np.arange(N_CHANNEL) > 60, 5, 0)
    backscal = np.linspace(1, 2, N_CHANNEL)
    like = like.with_spectrum(small_spectrum(background=False, flags=flags, quality=quality, backscal=backscal))
    write_pha(tmp_path / "fake.pha", like.spectrum.counts, like=like)
    again = read_observation(tmp_path / "fake.pha", rmf="none").spectrum
    assert np.array_equal(again.flags, flags)
    assert np.array_equal(again.quality, quality)
    assert np.array_equal(again.backscal, backscal)


def test_fractional_counts_say_so(path, tmp_path):
    like = read_observation(path, background="none")
    write_pha(tmp_path / "fake.pha", like.spectrum.counts + 0.25, like=like)
    assert fits.getheader(tmp_path / "fake.pha", 1)["POISSERR"] is False
    again = read_observation(tmp_path / "fake.pha").spectrum
    assert np.array_equal(again.counts, like.spectrum.counts + 0.25)
    assert not again.poisson


def test_background_counts_without_a_background_to_be_like(path, tmp_path):
    like = read_observation(path, background="none")
    with pytest.raises(UserError, match="without background"):
        write_pha(tmp_path / "fake.pha", like.spectrum.counts, like=like, background=like.spectrum.counts)
    assert not (tmp_path / "fake.pha").exists()


@pytest.mark.parametrize("counts", [np.ones(3), np.full(N_CHANNEL, np.nan)])
def test_counts_that_make_no_sense_are_a_programmers_mistake(path, tmp_path, counts):
    with pytest.raises(ValueError, match="counts must"):
        write_pha(tmp_path / "fake.pha", counts, like=read_observation(path))


@pytest.mark.parametrize("write", [write_arf, write_rmf])
def test_missing_folder_is_one_sentence_and_nothing_is_left(tmp_path, write):
    with pytest.raises(UserError, match="does not exist"):
        write(tmp_path / "no" / "a.fits", small_response())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_a_real_matrix_comes_back(shared_data, tmp_path):
    response = read_observation(shared_data / "spectra" / "acis_3c273" / "src.pha").response
    again = read_response(write_rmf(tmp_path / "a.rmf", response), write_arf(tmp_path / "a.arf", response))
    assert abs(again.matrix - response.matrix).max() == 0.0
    assert np.array_equal(again.area, response.area)
