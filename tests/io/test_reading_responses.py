"""RMF and ARF files: grids that do not quite match, channel numbering, and one sentence for each mistake."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from deepspec.errors import UserError
from deepspec.io import read_observation, read_response
from deepspec.io.response_files import LOWEST_ENERGY
from deepspec.io.write import write_rmf
from small_files import rewrite, small_response, with_cards, with_columns, without_tlmin, write_dense_rmf


def test_lower_energy_of_zero_is_replaced(path):
    def change(hdus):
        hdus[1].data["ENERG_LO"][0] = 0.0

    for name in ("src.rmf", "src.arf"):
        rewrite(path.with_name(name), change)
    assert read_observation(path).response.edges[0] == LOWEST_ENERGY


def test_area_that_begins_inside_the_first_bin_keeps_its_limit(path):
    """Circinus: matrix from 0.001 keV, area from 0.05 keV, otherwise equal."""

    def change(hdus):
        hdus[1].data["ENERG_LO"][0] = 0.01

    rewrite(path.with_name("src.rmf"), change)
    assert read_observation(path).response.edges[0] == pytest.approx(0.3)


def test_area_on_a_part_of_the_grid(path):
    def change(hdus):
        hdus[1].data = hdus[1].data[5:30]

    whole = read_observation(path).response
    rewrite(path.with_name("src.arf"), change)
    part = read_observation(path).response
    assert np.array_equal(part.area[5:30], whole.area[5:30])
    assert not part.area[:5].any()
    assert not part.area[30:].any()


def test_area_on_another_grid_is_refused(path):
    def change(hdus):
        hdus[1].data["ENERG_LO"] *= 1.1
        hdus[1].data["ENERG_HI"] *= 1.1

    rewrite(path.with_name("src.arf"), change)
    with pytest.raises(UserError, match=r"energy bins do not match those of src\.rmf"):
        read_observation(path)


def test_falling_energies_are_turned_round(path):
    whole = read_observation(path).response
    response = small_response()
    low, high, matrix = response.edges[:-1], response.edges[1:], response.matrix.toarray()
    columns = {"ENERG_LO": low[::-1], "ENERG_HI": high[::-1], "MATRIX": matrix[::-1]}
    write_dense_rmf(path.with_name("src.rmf"), response, **columns)
    rewrite(path.with_name("src.arf"), lambda hdus: with_columns(hdus, SPECRESP=response.area[::-1]))
    rewrite(path.with_name("src.arf"), lambda hdus: with_columns(hdus, ENERG_LO=low[::-1], ENERG_HI=high[::-1]))
    turned = read_observation(path).response
    assert turned.edges == pytest.approx(whole.edges)
    assert turned.area == pytest.approx(whole.area)
    assert abs(turned.matrix - whole.matrix).max() < 1e-7


def test_bins_without_width_are_dropped(path):
    """The ROSAT PSPC matrix has 19 of them."""
    response = small_response()
    rows = np.sort(np.append(np.arange(40), 20))
    low, high = response.edges[:-1][rows], response.edges[1:][rows]
    high[20] = low[20]
    columns = {"ENERG_LO": low, "ENERG_HI": high, "MATRIX": response.matrix.toarray()[rows]}
    ones = np.ones(41, dtype=np.int16)
    write_dense_rmf(path.with_name("src.rmf"), response, **columns, N_GRP=ones, F_CHAN=ones, N_CHAN=64 * ones)
    rewrite(path.with_name("src.arf"), lambda hdus: with_columns(hdus, SPECRESP=response.area[rows]))
    rewrite(path.with_name("src.arf"), lambda hdus: with_columns(hdus, ENERG_LO=low, ENERG_HI=high))
    again = read_observation(path).response
    assert len(again.area) == 40
    assert again.area == pytest.approx(response.area)


def test_a_matrix_without_area_needs_one(path):
    with pytest.raises(UserError, match="no effective area") as caught:
        read_response(path.with_name("src.rmf"))
    assert "--arf none" in caught.value.remedy


def test_a_matrix_with_area_needs_none(path):
    whole = small_response()
    write_dense_rmf(path.with_name("src.rmf"), whole, MATRIX=100.0 * whole.matrix.toarray())
    rewrite(path, with_cards(ANCRFILE="none"))
    response = read_observation(path).response
    assert response.total_area.max() == pytest.approx(100.0, rel=1e-3)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.CRITICAL])
@pytest.mark.parametrize("first", [0, 1])
def test_without_tlmin_channels_count_from_where_the_matrix_does(tmp_path, first, level, request):
    """Sherpa tells of it in its log alone, which a user may have silenced."""
    logger = logging.getLogger("sherpa")
    request.addfinalizer(lambda before=logger.level: logger.setLevel(before))
    logger.setLevel(level)
    response = small_response(first_channel=first)
    file = write_rmf(tmp_path / "a.rmf", response)
    rewrite(file, without_tlmin)
    again = read_response(file, "none")
    assert abs(again.matrix - response.matrix).max() < 1e-7
    assert "no TLMIN" in again.notes[0]


def test_channel_column_of_ebounds_is_not_used(path):
    """In the matrix of 3C 186 it is 0 in every row."""

    def change(hdus):
        hdus["EBOUNDS"].data["CHANNEL"][:] = 0

    whole = read_observation(path).response
    rewrite(path.with_name("src.rmf"), change)
    assert (read_observation(path).response.matrix != whole.matrix).nnz == 0


def test_channels_beyond_ebounds_are_refused(path):
    rewrite(path.with_name("src.rmf"), lambda hdus: hdus["MATRIX"].header.set("TLMIN4", 9))
    with pytest.raises(UserError, match="F_CHAN points outside the 64 channels"):
        read_observation(path)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "negative values or NaN"), (-0.5, "negative values or NaN")])
def test_elements_that_make_no_sense(path, value, words):
    matrix = small_response().matrix.toarray()
    matrix[3, 1] = value
    write_dense_rmf(path.with_name("src.rmf"), small_response(), MATRIX=matrix)
    with pytest.raises(UserError, match=words):
        read_observation(path)


def test_negative_area_counts_as_zero_with_a_note(path):
    def change(hdus):
        hdus[1].data["SPECRESP"][-3:] = -4.0

    rewrite(path.with_name("src.arf"), change)
    observation = read_observation(path)
    assert observation.response.area[-3:].tolist() == [0, 0, 0]
    assert any("count as zero" in note for note in observation.notes)
