"""`deepspec plot`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from deepspec_cli.main import main
from learned.toy_weights import toy_weights

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPSPEC_WEIGHTS", str(tmp_path))
    toy_weights(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["plot", *map(str, words)])


def refused(found, *words):
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1
    for word in words:
        assert word in found.output


def test_help_teaches(run):
    for verb in ("components", "latents", "activation", "reconstruction"):
        found = run(verb, "--help")
        assert found.exit_code == 0
        assert f"deepspec plot {verb}" in found.output
        assert "--weights" in found.output


@pytest.mark.parametrize("verb", ["components", "latents"])
def test_weights_are_drawn_by_name_and_by_file(run, verb, tmp_path):
    found = run(verb, "--weights", "toy", "--dpi", 40)
    assert found.exit_code == 0, found.output
    assert f"written: {verb}.png" in found.output
    found = run(verb, "--weights", tmp_path / "toy.h5", "-o", "other.pdf")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "other.pdf").read_bytes().startswith(b"%PDF")


def test_mistakes_are_one_sentence_and_leave_nothing(run, tmp_path):
    refused(run("components", "--weights", "none"), "there are no weights called 'none'")
    refused(run("components", "--weights", "toy", "-o", "a.doc"), "a.doc", ".png")
    refused(run("latents", "--weights", "toy", "-o", "no/a.png"), "mkdir -p no")
    refused(run("latents", "--weights", "toy", "--reach", "40"), "--reach")
    refused(run("activation", "--weights", "toy"), "oracle")
    refused(run("reconstruction", DATA / "faint_a.pha", "-m", "tbabs*powerlaw", "--weights", "toy"), "--weights")
    refused(run("reconstruction", "missing.pha", "--weights", "toy"), "missing.pha")
    refused(run("reconstruction"), "FILE")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.h5"]


@pytest.mark.slow
def test_a_spectrum_is_reconstructed(run, tmp_path):
    words = ["reconstruction", DATA / "faint_a.pha", "--weights", "toy", "--draws", 60, "--starts", 2, "--dpi", 50]
    found = run(*words, "--fix", "nH=0.6", "-o", "faint.png")
    assert found.exit_code == 0, found.output
    assert "60 draws from the posterior by tempered Monte Carlo" in found.output
    assert "seed 0" in found.output
    assert (tmp_path / "faint.png").stat().st_size > 5000
    quiet = run(*words, "--fix", "nH=0.6", "-q", "-o", "quiet.png")
    assert quiet.exit_code == 0
    assert quiet.stdout == ""
    # the same seed, the same figure
    assert (tmp_path / "quiet.png").read_bytes() == (tmp_path / "faint.png").read_bytes()
