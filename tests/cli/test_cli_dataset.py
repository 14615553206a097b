"""`deepspec dataset`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from deepspec_cli.main import main
from tests.training.catalogue_files import RMF, write_matrix, write_product


def run(*words):
    return CliRunner().invoke(main, ["dataset", *map(str, words)])


@pytest.fixture
def pps(tmp_path):
    for number in (1, 2):
        write_product(tmp_path / "pps", number, scale=50 if number == 2 else 1)
    write_matrix(tmp_path / "rmf")
    return tmp_path / "pps"


def test_build_and_info(pps, tmp_path):
    out = tmp_path / "xmm.h5"
    made = run("build", pps, "-o", out, "--rmf", tmp_path / "rmf", "-j", 1)
    assert made.exit_code == 0, made.output
    assert "xmm.h5: 1 spectra" in made.output
    assert "1 left out: fewer counts in the band than --min-counts" in made.output
    assert "xmm.rejected.csv" in made.output
    shown = run("info", out)
    assert shown.exit_code == 0, shown.output
    for words in ("1 of 1 sources in 1 observations", "pn 1", "at least 200 counts in 0.3:10 keV", RMF, "few counts"):
        assert words in shown.output
    document = json.loads(run("info", out, "--json").output)
    assert document["spectra"] == 1
    assert document["rejected"] == {"few counts": 1}
    again = run("build", pps, "-o", out, "--rmf", tmp_path / "rmf", "--resume", "--json")
    assert json.loads(again.output)["looked_at"] == 0


def test_matrices_that_are_missing_for_some_are_named(pps, tmp_path):
    from small_files import rewrite, with_cards

    path = write_product(tmp_path / "pps", 7)
    import gzip

    path.write_bytes(gzip.decompress(path.read_bytes()))
    rewrite(path, with_cards(RESPFILE="m1_other.rmf"))
    made = run("build", pps, "-o", tmp_path / "x.h5", "--rmf", tmp_path / "rmf", "-j", 1)
    assert made.exit_code == 0, made.output
    assert "1 want m1_other.rmf: " in made.output
    assert "--rmf m1_other.rmf=FILE, and --resume" in made.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "{pps}"], "Missing option"),
        (["build", "{pps}", "-o", "{pps}/x.h5"], f"--rmf {RMF}=FILE"),
        (["build", "{pps}", "-o", "{pps}/x.h5", "--band", "soft"], "--band: 'soft' is not a range; write LO:HI"),
        (["build", "{pps}/none", "-o", "{pps}/x.h5"], "no such folder"),
        (["info", "{pps}/none.h5"], "no such file; make one with"),
        (["info", __file__], "is not an HDF5 file"),
    ],
)
def test_mistakes_are_one_line(pps, words, said):
    found = run(*[word.format(pps=pps) for word in words])
    assert found.exit_code == 2
    assert said in found.output
    assert len(found.output.strip().splitlines()) == 1
