"""deepspec info: what it says of sound, incomplete and broken files."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from deepspec.errors import UserError
from deepspec_cli.info import command
from small_files import rewrite, small_spectrum, write_small


@pytest.fixture
def path(tmp_path):
    return write_small(tmp_path)


def run(*arguments):
    """Standalone mode is left to the main command, which turns a UserError into one line."""
    return CliRunner().invoke(command, [str(a) for a in arguments])


def facts(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["data"]


def test_json_is_one_document_with_the_numbers(path):
    (found,) = facts(path)
    spectrum = small_spectrum()
    assert found["file"] == str(path)
    assert found["counts"] == spectrum.counts.sum()
    assert found["exposure"] == 1000.0
    assert found["background"]["counts"] == spectrum.background.sum()
    assert found["background"]["scaled_counts"] == pytest.approx(0.25 * spectrum.background.sum())
    assert found["response"]["arf"].endswith("src.arf")
    assert found["response"]["largest_area"] == pytest.approx(200, rel=0.05)
    assert found["header"]["TELESCOP"] == "SMALL"
    assert found["default_grouping"] == "optimal+minbkg:5"
    assert found["warnings"] == []
    low, high = found["usable_band"]
    assert 0.1 <= low < 1.0
    assert 5.0 < high <= 10.3


def test_words_say_the_same(path):
    result = run(path)
    assert result.exit_code == 0
    for word in ("1,000.0 s", "SMALL CCD", "64 from 1", "src_bkg.pha", "usable band", "optimal+minbkg:5"):
        assert word in result.output


def test_several_files_are_several_entries(path):
    assert [f["file"] for f in facts(path, path)] == [str(path)] * 2


def test_without_response_it_says_what_is_missing(path):
    def unlink(hdus):
        hdus[1].header["RESPFILE"] = "gone.rmf"
        hdus[1].header["BACKFILE"] = "gone.pha"

    rewrite(path, unlink)
    (found,) = facts(path)
    assert found["response"] is None
    assert found["background"] is None
    assert found["usable_band"] is None
    assert any("gone.rmf" in w and "--rmf" in w for w in found["warnings"])
    assert any("gone.pha" in w and "--bkg" in w for w in found["warnings"])
    assert "gone.rmf" in run(path).output
    (mended,) = facts(path, "--rmf", path.with_name("src.rmf"), "--bkg", path.with_name("src_bkg.pha"))
    assert mended["response"]["rmf"].endswith("src.rmf")
    assert mended["warnings"] == []


def test_no_response_named_at_all_is_a_warning(path):
    rewrite(path, lambda hdus: hdus[1].header.remove("RESPFILE"))
    assert any("no response" in w for w in facts(path)[0]["warnings"])


@pytest.mark.parametrize("name", ["missing.pha", "src.rmf"])
def test_a_file_that_is_no_spectrum_is_a_users_mistake(path, name):
    result = run(path.with_name(name))
    assert isinstance(result.exception, UserError)


def test_every_shared_file_can_be_asked_about(shared_data):
    names = [
        "spectra/acis_cluster_annulus05/src.pha",
        "odd_files/isgri_ngc2110.pha",
        "odd_files/rosat_xrb_rate_exp1.pha",
    ]
    found = facts(*(shared_data / name for name in names))
    assert any("EXPOSURE 1" in w and "--bkg none" in w for w in found[0]["warnings"])
    assert not found[1]["poisson"]
    assert any("placeholder" in w for w in found[2]["warnings"])
