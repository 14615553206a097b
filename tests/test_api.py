"""From files to a result: the recipe of a fit, its repetition, warnings, and what is saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deepspec
from deepspec import api
from deepspec.errors import UserError

DATA = Path(__file__).resolve().parents[1] / "data"
MODEL = "tbabs*(powerlaw+bbody)"
TRUTH = {"tbabs.nH": 0.25, "powerlaw.PhoIndex": 1.8, "powerlaw.norm": 2.5e-4, "bbody.kT": 0.35, "bbody.norm": 4.0e-6}


@pytest.fixture(scope="module")
def fitted():
    return deepspec.fit(DATA / "binary_a.pha", MODEL, notice=(0.4, 9))


@pytest.fixture(scope="module")
def faint():
    return deepspec.read(DATA / "faint_a.pha").notice(0.5, 7).group("min", 5)


def numbers(result):
    """What must come out the same when a fit is repeated."""
    found = result.to_dict()
    return {
        k: found[k] for k in ("model", "statistic", "parameters", "fluxes", "engine", "covariance", "goodness", "grids")
    }


def test_the_truth_is_within_the_errors(fitted):
    result = fitted.result
    assert result.converged
    for key, truth in TRUTH.items():
        item = result.parameters[key]
        assert item.lower68 < item.value < item.upper68
        assert abs(item.value - truth) < 3.5 * (item.upper68 - item.lower68) / 2
    s = result.statistic
    assert s.dof == s.bins - 5
    assert abs(s.value - s.dof) < 5 * np.sqrt(2 * s.dof)


def test_data_say_what_was_fitted(fitted):
    (item,) = fitted.result.data
    assert item.counts == fitted.problem.datasets[0].binned.counts.sum()
    assert item.band == pytest.approx((0.39, 9.0))
    assert set(map(os.path.basename, item.hashes)) == {"binary_a_bkg.pha", "camera_a.rmf.gz", "camera_a.arf"}
    assert item.hash == deepspec.files.sha256(DATA / "binary_a.pha")


def test_fluxes_agree_with_the_model(fitted):
    for flux in fitted.result.fluxes:
        assert flux.lower68 < flux.value < flux.upper68
        # The normalisation of 7900 counts is known to about a per cent.
        assert (flux.upper68 - flux.lower68) / flux.value < 0.2
    observed, unabsorbed = (f.value for f in fitted.result.fluxes[:2])
    assert observed < unabsorbed
    assert [f.outside_data for f in fitted.result.fluxes] == [False, False, True, True]


def test_the_same_numbers_from_the_saved_result(fitted, tmp_path):
    fitted.save(tmp_path, plots=False)
    again = deepspec.fit(config=tmp_path / "result.json")
    assert numbers(again.result) == numbers(fitted.result)
    assert not again.result.warnings


def test_the_same_numbers_with_everything_chosen(tmp_path):
    first = api.fit(
        [DATA / "binary_a.pha", DATA / "binary_b.pha"],
        "tbabs*(powerlaw+bbody)",
        notice=["0.5:8", "2=0.6:7"],
        ignore="1.8:1.9",
        group=["optimal+minbkg:1", "2=min:20"],
        crosscal=True,
        set={"PhoIndex": 2.0},
        fix={"kT": 0.35},
        limits={"nH": (0.0, 5.0)},
        link={"bbody.norm": "powerlaw.norm * 0.016"},
        prior={"PhoIndex": "normal(1.8, 0.5)"},
        flux=[(1, 2)],
        errors="profile",
        starts=3,
        seed=5,
        goodness=4,
        steppar="PhoIndex=1.6:2.0:3",
        abund="angr",
        redshift=0.01,
    )
    first.save(tmp_path, plots=False)
    assert numbers(api.fit(config=tmp_path / "result.json").result) == numbers(first.result)
    parameters = first.result.parameters
    assert parameters["bbody.norm"].value == pytest.approx(0.016 * parameters["powerlaw.norm"].value)
    assert parameters["bbody.norm"].link == "powerlaw.norm * 0.016"
    assert parameters["crosscal_2.factor"].value == pytest.approx(1.0, abs=0.15)
    assert [f.kind for f in first.result.fluxes] == ["observed", "unabsorbed", "luminosity"]
    assert first.result.settings["tbabs"]["abundances"] == "angr"
    assert first.result.goodness["simulations"] == 4


def test_a_ready_observation_gives_the_fit_of_its_file(fitted, tmp_path):
    ready = deepspec.read(DATA / "binary_a.pha").notice(0.4, 9).group("auto")
    found = deepspec.fit(ready, MODEL)
    assert numbers(found.result) == numbers(fitted.result)
    found.save(tmp_path, plots=False)
    assert numbers(deepspec.fit(config=tmp_path / "result.json").result) == numbers(fitted.result)
    with pytest.raises(TypeError, match="notice belongs to the observations"):
        deepspec.fit(ready, MODEL, notice=(1, 2))


def test_a_changed_option_changes_only_that(fitted, tmp_path):
    fitted.save(tmp_path, plots=False)
    other = api.fit(config=tmp_path / "result.json", fix={"nH": 0.25}, flux=(1, 3))
    assert other.result.parameters["tbabs.nH"].frozen
    assert other.result.parameters["tbabs.nH"].value == 0.25
    assert [f.band for f in other.result.fluxes] == [(1.0, 3.0)] * 2
    assert other.result.data == fitted.result.data


def test_a_changed_file_is_noticed(tmp_path):
    for path in [*DATA.glob("*_a*.pha"), *DATA.glob("camera_a*")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    api.fit(tmp_path / "faint_a.pha", "powerlaw", notice=(0.5, 7), starts=1).save(tmp_path, plots=False)
    (tmp_path / "faint_a.pha").write_bytes((DATA / "binary_a.pha").read_bytes())
    again = api.fit(config=tmp_path / "result.json")
    assert any("has changed since the fit" in text for text in again.result.warnings)


def test_profiles_and_covariance_agree_on_many_counts(fitted):
    profiled = api.fit(DATA / "binary_a.pha", MODEL, notice=(0.4, 9), errors="profile", delta=2.706)
    for key, item in profiled.result.parameters.items():
        other = fitted.result.parameters[key]
        assert item.errors == "profile"
        assert item.upper68 - item.lower68 == pytest.approx(other.upper68 - other.lower68, rel=0.25)
        assert item.upper - item.lower == pytest.approx(1.645 * (item.upper68 - item.lower68), rel=0.2)


def test_no_errors_if_none_are_wanted(faint):
    result = deepspec.fit(faint, "powerlaw", errors="none").result
    assert all(p.lower68 is None and p.upper68 is None for p in result.parameters.values())
    assert result.covariance is None
    assert all(f.lower68 is None for f in result.fluxes)


def test_a_parameter_at_its_limit_has_no_symmetric_error(faint):
    result = deepspec.fit(faint, "tbabs*powerlaw", limits={"nH": (0.0, 0.05)}).result
    item = result.parameters["tbabs.nH"]
    assert item.value == 0.05
    assert item.at_limit
    assert item.lower68 is None
    assert any("tbabs.nH ended at its upper limit 0.05" in text for text in result.warnings)


def test_an_interval_stops_at_a_limit(faint):
    result = deepspec.fit(faint, "tbabs*powerlaw", limits={"nH": (0.0, 0.05)}, errors="profile").result
    item = result.parameters["tbabs.nH"]
    assert item.at_limit
    assert item.upper68 == 0.05
    assert item.lower68 < 0.05


def test_expected_statistic_belongs_to_cstat_alone(faint, fitted):
    s = deepspec.fit(faint, "tbabs*powerlaw", stat="cstat").result.statistic
    assert s.name == "cstat"
    assert abs(s.value - s.expected) < 5 * s.expected_sigma
    assert 0 < s.expected_p < 1
    assert fitted.result.statistic.expected is None


def test_everything_frozen_is_a_result_too(faint):
    result = deepspec.fit(faint, "powerlaw", fix=["PhoIndex=1.7", "norm=8e-6"], steppar=()).result
    assert result.converged
    assert result.statistic.dof == result.statistic.bins
    assert result.fluxes[0].lower68 is None


def test_a_better_minimum_restarts_the_fit(faint, monkeypatch):
    """Profiles that come across something better are listened to, and the result says so."""
    real, calls = api.ENGINES["maximum"], []

    def lazy(problem, options):
        calls.append(problem.parameters.vector())
        found = real(problem, options)
        if len(calls) == 1:
            worse = found.theta * 1.1
            import dataclasses

            return dataclasses.replace(found, theta=worse, value=float(problem.objective(worse)))
        return found

    monkeypatch.setattr(api, "ENGINES", {"maximum": lazy})
    result = deepspec.fit(faint, "powerlaw", errors="profile").result
    assert len(calls) == 2
    assert any("came across a better minimum" in text for text in result.warnings)


def test_too_many_parameters_are_refused():
    with pytest.raises(UserError, match="5 free parameters are more than the 2 fitted bins can decide; fix some"):
        api.fit(DATA / "binary_a.pha", MODEL, notice=(2, 6), group="width:2")


def test_saving_writes_everything_or_says_why(fitted, tmp_path):
    written = fitted.save(tmp_path / "new" / "folder")
    assert [p.name for p in written] == ["result.json", "spectrum.png", "unfolded.png"]
    assert sorted(p.name for p in (tmp_path / "new/folder").iterdir()) == sorted(p.name for p in written)
    assert json.loads(written[0].read_text()) == fitted.result.to_dict()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        api.check_folder(tmp_path / "file" / "below")
    api.check_folder(tmp_path / "not" / "there" / "yet")
    assert not (tmp_path / "not").exists()


def test_a_full_disk_leaves_the_old_result(fitted, tmp_path, monkeypatch):
    (tmp_path / "result.json").write_text("old")

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        fitted.save(tmp_path)
    assert (tmp_path / "result.json").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_names_tell_files_apart(tmp_path):
    for folder in ("pn", "mos"):
        (tmp_path / folder).mkdir()
        for name in ("faint_a.pha", "faint_a_bkg.pha", "camera_a.arf", "camera_a.rmf.gz"):
            (tmp_path / folder / name).write_bytes((DATA / name).read_bytes())
    files = [tmp_path / "pn/faint_a.pha", tmp_path / "mos/faint_a.pha"]
    result = api.fit(files, "powerlaw", notice=(0.5, 7), crosscal=True, starts=1).result
    assert [d.name for d in result.data] == ["pn", "mos"]
    assert result.parameters["crosscal_2.factor"].value == pytest.approx(1.0, abs=1e-6)


def test_progress_is_told(faint):
    told = []
    deepspec.fit(faint, "powerlaw", goodness=3, steppar="PhoIndex=1:2:3", progress=lambda *what: told.append(what))
    assert ("goodness", 3, 3) in told
    assert ("steppar", 3, 9) in told  # three points, gone over up to three times
    assert ("steppar", 9, 9) in told


def test_a_fit_prints_as_its_table(fitted):
    assert "PhoIndex" in str(fitted)
    assert "\x1b" not in str(fitted)


@pytest.mark.parametrize("steppar", ["PhoIndex", "PhoIndex=1:2", "PhoIndex=2:1:5", "PhoIndex=1:2:1", "foo=1:2:3"])
def test_no_grid(faint, steppar):
    with pytest.raises(UserError, match=f"--steppar {steppar}"):
        deepspec.fit(faint, "powerlaw", steppar=steppar)


def test_three_grids_are_one_too_many(faint):
    with pytest.raises(UserError, match="at most two"):
        deepspec.fit(faint, "tbabs*powerlaw", steppar=["PhoIndex=1:2:3", "nH=0:1:3", "norm=1e-6:1e-5:3"])


def test_a_grid_must_fit_into_memory(faint):
    with pytest.raises(UserError, match="--steppar: a grid of 4000 points is too much; take at most"):
        deepspec.fit(faint, "tbabs*powerlaw", steppar=["PhoIndex=1:2:80", "nH=0:1:50"])


def test_as_many_starts_as_asked_for(faint):
    assert deepspec.fit(faint, "powerlaw", starts=150).result.engine["starts"] == 150
    with pytest.raises(UserError, match="--starts: 5000 starts are too many"):
        deepspec.fit(faint, "powerlaw", starts=5000)


def test_a_fit_loads_only_what_it_needs():
    """torch.broadcast_shapes alone imports sympy, two seconds of a fit that takes three."""
    code = (
        "import sys, deepspec\n"
        f"fitted = deepspec.fit({str(DATA / 'faint_a.pha')!r}, 'tbabs*(powerlaw+bbody)', notice=(0.5, 7), starts=2)\n"
        "fitted.result.to_json()\n"
        "print(*sorted({'sympy', 'matplotlib', 'pandas', 'rich', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # h5py reads the cross-sections.
    assert done.stdout.split() == ["h5py"]
