"""The minima found on real observations against Sherpa's, for a handful of those in docs/minima.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import compare_minima  # noqa: E402

SETS = ("acis_3c273", "nustar_a_op313", "acis_m31_r0043")


def check(row):
    assert row.same_point < 1e-8
    assert row.above < compare_minima.TOLERANCE
    assert min(row.levmar.evaluations, row.neldermead.evaluations, row.ours.evaluations) > 1


def cases(folder, name):
    return {case.model: case for case in compare_minima.cases(folder, [name])}


def test_every_observation_is_named_in_the_readme(shared_data):
    assert set(compare_minima.bands(shared_data)) == {f.name for f in (shared_data / "spectra").iterdir() if f.is_dir()}


@pytest.mark.parametrize("name", SETS)
def test_absorbed_power_law(shared_data, name):
    check(compare_minima.compare(cases(shared_data, name)[compare_minima.EASY]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mos1_mnlup", "acis_ngc4258"])
@pytest.mark.parametrize("model", compare_minima.HARD)
def test_models_with_several_minima(shared_data, name, model):
    check(compare_minima.compare(cases(shared_data, name)[model]))


@pytest.mark.slow
def test_page_is_written_from_the_rows(shared_data, tmp_path, monkeypatch, capsys):
    page = tmp_path / "minima.md"
    arguments = ["compare_minima.py", str(shared_data), "--only", "acis_3c273", "--easy", "--out", str(page)]
    monkeypatch.setattr(sys, "argv", arguments)
    compare_minima.main()
    assert "acis_3c273 | 0.5-7 | wstat" in page.read_text()
    assert "in **0** of 1 fits" in page.read_text()
    assert "acis_3c273" in capsys.readouterr().out


def test_committed_page_says_that_no_minimum_is_higher():
    text = (ROOT / "docs/minima.md").read_text()
    rows = re.findall(r"^\| \w+ \| [\d.]+-[\d.]+ \|.*$", text, re.MULTILINE)
    above = [float(row.split("|")[8]) for row in rows]
    assert len(above) > 40
    assert max(above) < compare_minima.TOLERANCE
