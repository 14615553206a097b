"""`deepspec fit` from end to end on the bundled observations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deepspec import api
from deepspec_cli.fit import command
from deepspec_cli.main import main

DATA = Path(__file__).resolve().parents[2] / "data"
FAINT, A, B = (str(DATA / f"{name}.pha") for name in ("faint_a", "binary_a", "binary_b"))
QUICK = ["--model", "tbabs*powerlaw", "--notice", "0.5:7", "--starts", "2"]


def fit(*arguments):
    return CliRunner().invoke(main, ["fit", *arguments])


def document(*arguments):
    result = fit(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_table_and_nothing_else():
    result = fit(FAINT, *QUICK)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    for word in ("faint_a.pha", "PhoIndex", "wstat", "0.5-2"):
        assert word in result.stdout


def test_one_json_document_and_nothing_else(tmp_path):
    result = fit(FAINT, *QUICK, "--json", "--out", str(tmp_path / "out"), "--no-plots")
    assert result.exit_code == 0
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "out/result.json").read_text())
    assert found["provenance"]["command"].startswith(f"deepspec fit {FAINT} --model 'tbabs*powerlaw'")


def test_out_holds_result_and_plots(tmp_path):
    result = fit(FAINT, *QUICK, "--out", str(tmp_path / "a/b"), "--steppar", "PhoIndex=1:2:3")
    assert result.exit_code == 0
    names = {"result.json", "spectrum.png", "unfolded.png", "steppar.png"}
    assert {p.name for p in (tmp_path / "a/b").iterdir()} == names
    assert all(name in result.stdout for name in names)
    assert (tmp_path / "a/b/spectrum.png").read_bytes().startswith(b"\x89PNG")


def test_without_out_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(FAINT, *QUICK).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_quiet_says_nothing():
    result = fit(FAINT, *QUICK, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_config_repeats_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(DATA)
    first = document("faint_a.pha", *QUICK, "--fix", "nH=0.6", "--out", str(tmp_path), "--no-plots")
    monkeypatch.chdir(tmp_path)
    again = document("--config", "result.json")
    assert {k: v for k, v in again.items() if k not in ("provenance", "data")} == {
        k: v for k, v in first.items() if k not in ("provenance", "data")
    }
    assert [d["hash"] for d in again["data"]] == [d["hash"] for d in first["data"]]
    thawed = document("--config", "result.json", "--thaw", "nH", "--notice", "1:5")
    assert not thawed["parameters"]["tbabs.nH"]["frozen"]
    assert thawed["config"]["notice"] == ["1:5"]


def test_a_joint_fit():
    found = document(A, B, "--model", "tbabs*(po+bb)", "--notice", "0.4:9", "--notice", "2=0.5:8", "--crosscal")
    assert [d["name"] for d in found["data"]] == ["binary_a", "binary_b"]
    assert found["data"][0]["band"][0] < 0.45
    assert found["data"][1]["band"][0] >= 0.475
    assert found["parameters"]["crosscal_2.factor"]["value"] == pytest.approx(1.0, abs=0.1)


def test_options_reach_the_fit():
    found = document(
        FAINT, "--model", "tbabs*powerlaw", "--notice", "0.5:7", "--ignore", "2:2.2", "--rule", "inside", "--group", "min:5",
        "--stat", "cstat", "--set", "PhoIndex=1.6", "--fix", "nH=0.6", "--limits", "PhoIndex=0:3", "--prior",
        "PhoIndex=normal(1.7,0.3)", "--errors", "profile", "--delta", "2.706", "--flux", "1:3", "--redshift", "0.1",
        "--seed", "7", "--starts", "3", "--abund", "angr", "--goodness", "2",
    )  # fmt: skip
    assert found["statistic"]["name"] == "cstat"
    assert found["statistic"]["expected"] > 0
    assert found["data"][0]["grouping"].startswith("min:5")
    assert found["data"][0]["rule"].startswith("inside")
    index = found["parameters"]["powerlaw.PhoIndex"]
    assert (index["low"], index["high"], index["prior"], index["errors"]) == (0, 3, "normal(1.7,0.3)", "profile")
    assert index["lower"] < index["lower68"]
    assert [f["kind"] for f in found["fluxes"]] == ["observed", "unabsorbed", "luminosity"]
    assert found["fluxes"][0]["band"] == [1, 3]
    assert found["settings"]["tbabs"]["abundances"] == "angr"
    assert found["goodness"]["simulations"] == 2
    assert (found["engine"]["starts"], found["provenance"]["seed"]) == (3, 7)


def test_other_responses_and_backgrounds():
    found = document(FAINT, *QUICK, "--bkg", "none", "--arf", str(DATA / "camera_a.arf"))
    assert found["data"][0]["background"] is None
    assert found["statistic"]["name"] == "cstat"


def test_every_choice_has_an_option():
    """What decides a fit can be typed; --config and --json cannot drift apart from the options."""
    import dataclasses

    from deepspec.choices import ACTIONS, Choices

    options = {p.name for p in command.params}
    assert {f.name for f in dataclasses.fields(Choices)} - {"actions", "folder"} <= options
    assert set(ACTIONS) <= options


def test_a_fit_that_did_not_converge_is_written_and_ends_with_3(tmp_path, monkeypatch):
    real = api.MaximumOptions
    monkeypatch.setattr(api, "MaximumOptions", lambda **given: real(**{**given, "steps": 1}))
    arguments = [A, "--model", "tbabs*(powerlaw+bbody)", "--starts", "1", "--out", str(tmp_path), "--no-plots"]
    result = fit(*arguments, "--notice", "0.4:9", "--errors", "none")
    assert result.exit_code == 3
    assert "NOT CONVERGED" in result.stdout
    assert result.stderr.startswith("deepspec: the fit did not converge: not converged after 1 steps; ")
    assert json.loads((tmp_path / "result.json").read_text())["converged"] is False


@pytest.mark.slow
def test_as_a_user_runs_it(tmp_path):
    """A process of its own: table in a pipe, JSON pure, exit status, nothing on stderr."""
    code = "import sys; from deepspec_cli.main import main; sys.argv[0] = 'deepspec'; main()"
    environment = {**os.environ, "COLUMNS": "100"}

    def deepspec(*arguments):
        call = [sys.executable, "-W", "error", "-c", code, *arguments]
        return subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment)

    done = deepspec("fit", FAINT, *QUICK, "--json", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["converged"]
    done = deepspec("fit", "nowhere.pha", *QUICK)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "deepspec: nowhere.pha: no such file; check the name and the folder.\n"


@pytest.mark.slow
@pytest.mark.data
def test_three_real_cameras(shared_data, tmp_path):
    folders = [shared_data / "spectra" / f"{camera}_ngc7793_ulx4" for camera in ("pn", "mos1", "mos2")]
    files = [str(next(folder.glob("src.pha*"))) for folder in folders]
    found = document(*files, "--model", "tbabs*diskbb", "--crosscal", "--notice", "0.4:9", "--out", str(tmp_path))
    assert found["converged"]
    assert [d["name"] for d in found["data"]] == [folder.name for folder in folders]
    for key in ("crosscal_2.factor", "crosscal_3.factor"):
        assert found["parameters"][key]["value"] == pytest.approx(1.0, abs=0.15)
