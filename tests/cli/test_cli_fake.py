"""`deepspec fake`: what is drawn, written and linked, and that nothing is overwritten unasked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import deepspec
from deepspec.errors import UserError
from deepspec_cli.main import main

DATA = Path(__file__).resolve().parents[2] / "data"
LIKE = str(DATA / "faint_a.pha")


def fake(*arguments):
    return CliRunner().invoke(main, ["fake", *arguments])


def test_a_fake_can_be_fitted_at_once(tmp_path):
    out = tmp_path / "fake.pha"
    setting = ["--set", "PhoIndex=1.7", "--set", "norm=1e-4", "--set", "nH=0.3"]
    result = fake(
        "--model", "tbabs*powerlaw", *setting, "--like", LIKE, "--exposure", "50000", "--seed", "1", "--out", str(out)
    )
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fake.pha", "fake_bkg.pha"]
    assert "seed      1" in result.stdout
    found = deepspec.fit(out, "tbabs*powerlaw", notice=(0.5, 7), starts=2).result
    assert found.data[0].exposure == 50000
    assert found.statistic.name == "wstat"
    for key, truth in {"tbabs.nH": 0.3, "powerlaw.PhoIndex": 1.7, "powerlaw.norm": 1e-4}.items():
        item = found.parameters[key]
        assert abs(item.value - truth) < 4 * (item.upper68 - item.lower68) / 2


def test_the_same_seed_gives_the_same_counts(tmp_path):
    documents = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / f"{name}.pha"
        result = fake(
            "-m", "powerlaw", "--set", "norm=1e-4", "--like", LIKE, "--seed", str(seed), "--out", str(out), "--json"
        )
        documents.append(json.loads(result.stdout))
        assert documents[-1]["files"] == [str(out), str(tmp_path / f"{name}_bkg.pha")]
    counts = [deepspec.read(tmp_path / f"{name}.pha").spectrum.counts for name in "abc"]
    assert np.array_equal(counts[0], counts[1])
    assert not np.array_equal(counts[0], counts[2])
    assert documents[0]["counts"] == counts[0].sum()
    expected = documents[0]["expected_source"] + documents[0]["expected_background"]
    assert abs(documents[0]["counts"] - expected) < 5 * np.sqrt(expected)


def test_a_drawn_seed_is_told_and_repeats(tmp_path):
    first = json.loads(fake("-m", "powerlaw", "--like", LIKE, "--out", str(tmp_path / "a.pha"), "--json").stdout)
    again = fake(
        "-m", "powerlaw", "--like", LIKE, "--out", str(tmp_path / "b.pha"), "--seed", str(first["seed"]), "--json"
    )
    assert json.loads(again.stdout)["counts"] == first["counts"]


def test_the_norm_from_a_flux(tmp_path):
    out = str(tmp_path / "a.pha")
    result = fake(
        "-m", "tbabs*(powerlaw+bbody)", "--flux", "2:10=1e-12", "--like", LIKE, "--out", out, "--seed", "2", "--json"
    )
    made = json.loads(result.stdout)["parameters"]
    ready = deepspec.read(out).notice(0.5, 7)
    fixed = [f"{key}={value!r}" for key, value in made.items()]
    flux = deepspec.fit(ready, "tbabs*(powerlaw+bbody)", fix=fixed, flux=(2, 10)).result.fluxes[0]
    assert flux.value == pytest.approx(1e-12, rel=1e-4)


def test_from_a_response_alone(tmp_path):
    arguments = ["--rmf", str(DATA / "camera_a.rmf.gz"), "--arf", str(DATA / "camera_a.arf"), "--exposure", "1000"]
    result = fake("-m", "powerlaw", "--set", "norm=1e-3", *arguments, "--seed", "1", "--out", str(tmp_path / "a.pha"))
    assert result.exit_code == 0, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.pha"]
    found = deepspec.fit(tmp_path / "a.pha", "powerlaw", notice=(0.5, 7), starts=1).result
    assert found.statistic.name == "cstat"
    assert found.parameters["powerlaw.PhoIndex"].value == pytest.approx(1.0, abs=0.2)


def test_nothing_is_overwritten_unasked(tmp_path):
    for name in ("fake.pha", "fake_bkg.pha"):
        (tmp_path / name).write_text("mine")
        result = fake("-m", "powerlaw", "--like", LIKE, "--out", str(tmp_path / "fake.pha"))
        assert result.exit_code == 2
        assert f"{name}: is there already; choose another name, or add --clobber" in result.stderr
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "fake.pha").write_text("mine")
    assert fake("-m", "powerlaw", "--like", LIKE, "--out", str(tmp_path / "fake.pha"), "--clobber").exit_code == 0
    assert deepspec.read(tmp_path / "fake.pha").spectrum.exposure == 30000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "powerlaw"], "--like: there is nothing to imitate; give --like FILE, or --rmf FILE with --exposure"),
        (["-m", "tbabs", "--like", LIKE], "a model needs a source of photons"),
        (["-m", "powerlaw", "--like", "nowhere.pha"], "nowhere.pha: no such file"),
        (["-m", "powerlaw", "--like", LIKE, "--exposure", "-5"], "--exposure -5: the exposure is not positive"),
        (["-m", "powerlaw", "--like", LIKE, "--set", "foo=1"], "--set foo=1: unknown parameter"),
        (["-m", "powerlaw", "--like", LIKE, "--flux", "2:10"], "there is no flux in it"),
        (["-m", "powerlaw", "--like", LIKE, "--flux", "2:10=-1"], "no norm gives this flux"),
        (["-m", "powerlaw", "--like", LIKE, "--seed", "-1"], "--seed: the seed -1 is negative"),
        (["-m", "powerlaw", "--like", LIKE, "--set", "norm=1e20"], "too many to draw"),
    ],
)
def test_mistakes_write_nothing(tmp_path, arguments, sentence):
    result = fake(*arguments, "--out", str(tmp_path / "a.pha"))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_from_python(tmp_path):
    made = deepspec.fake("powerlaw", deepspec.read(LIKE), set={"norm": 1e-4}, seed=1, background="none")
    assert made.observation.spectrum.counts.sum() == made.simulation.counts.sum()
    assert made.simulation.background is None
    assert made.write(tmp_path / "a.pha") == (tmp_path / "a.pha",)
    with pytest.raises(UserError, match="is there already"):
        made.write(tmp_path / "a.pha")
