"""Trials in child processes: every way in which a model can fail becomes an outcome."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.models.xspec import available, probe, xspec_component
from deepspec.models.xspec.datafiles import DATA_FILES
from deepspec.models.xspec.library import library

ENDS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "crashes (segmentation fault)",
    "os.kill(os.getpid(), signal.SIGABRT)": "crashes (aborted)",
    "os._exit(0)": "ends the process (exit status 0)",
    "os._exit(2)": "ends the process (exit status 2)",
    "time.sleep(60)": "does not come back within 1 s",
    "1 / 0": "cannot be called (ZeroDivisionError: division by zero)",
    "{'what': 'returns zeros only'}": "returns zeros only",
    "os.write(2, b'hello\\ncannot open ari.mod\\nbye\\n') and {'what': ''}": "ok",
}


def test_every_end_of_a_fork_is_an_outcome():
    """In a process of its own: this one has threads and must not fork."""
    code = "import json, os, signal, time\nfrom dataclasses import asdict\n"
    code += "from deepspec.models.xspec.probe import _in_a_fork\n"
    for work in ENDS:
        code += f"print(json.dumps(asdict(_in_a_fork(lambda talk: {work}, 1.0))))\n"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome["what"] for outcome in outcomes] == list(ENDS.values())
    assert [outcome["ok"] for outcome in outcomes] == [False] * 7 + [True]
    assert outcomes[-1]["said"] == "cannot open ari.mod"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("out", "verdict"),
    [
        (np.array([np.nan, np.nan]), "leaves its output untouched"),
        (np.array([1.0, np.nan]), "leaves 50% of its output untouched"),
        (np.array([1.0, np.inf]), "returns infinite values"),
        (np.zeros(2), "returns zeros only"),
        (np.array([0.0, 1.0]), ""),
    ],
)
def test_verdicts(out, verdict):
    assert probe._verdict(out) == verdict


def test_successes_are_remembered_on_disk_and_failures_are_not(xspec_library, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSPEC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(probe, "_SEEN", {})
    definitions = library().definitions
    assert probe.probe(definitions["powerlaw"]).ok
    assert not probe.probe(definitions["laor"]).ok
    assert len(list(tmp_path.rglob("*.json"))) == 1
    monkeypatch.setattr(probe, "_SEEN", {})
    monkeypatch.setattr(probe, "_Child", None)  # a second trial would need it
    assert probe.probe(definitions["powerlaw"]).ok


def test_a_cache_that_cannot_be_written_or_read_is_no_obstacle(xspec_library, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEEPSPEC_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(probe, "_SEEN", {})
    assert probe.probe(library().definitions["powerlaw"]).ok


@pytest.mark.parametrize(
    ("name", "happened"),
    [
        ("apec", "crashes (segmentation fault)"),
        ("laor", "crashes (aborted)"),
        ("meka", "ends the process (exit status 0)"),
        ("nsatmos", "leaves its output untouched"),
        ("raymond", "returns zeros only"),
        ("kdblur", "crashes (aborted)"),
        ("zxipcf", "leaves its output untouched"),
    ],
)
def test_missing_data_is_one_sentence_with_file_folder_and_remedy(xspec_library, monkeypatch, tmp_path, name, happened):
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(tmp_path))  # without the slash that XSPEC wants
    definition = library().definitions[name]
    values = {entry.name: torch.tensor([entry.default]) for entry in definition.entries}
    # Where a switch selects the file, the component is made, and the model is tried when it is evaluated.
    with pytest.raises(UserError) as caught:
        xspec_component(name).evaluate(Grid([1.0, 2.0, 3.0]), **values)
    text = str(caught.value)
    assert text.startswith(f"XSPEC model {name}: it {happened} when tried at its default parameters: its data file ")
    (file,) = [file for file, models in DATA_FILES.items() if name in models.split()]
    assert f"{file} is not in {tmp_path}/; set XSPEC_MDATA_DIR" in text
    assert "\n" not in text


@pytest.mark.parametrize(("name", "file"), [("ismabs", "IsmabsAtomicData"), ("olivineabs", "ismdust_edge_data")])
def test_numbers_without_the_data_file_are_refused(xspec_library, monkeypatch, tmp_path, name, file):
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}: it returns wrong numbers .* {file}\.fits is not in"):
        xspec_component(name)


def test_numbers_that_come_with_a_complaint_are_refused(xspec_library, monkeypatch, tmp_path):
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(tmp_path))
    monkeypatch.setattr(probe, "SILENT", frozenset())
    outcome = probe.probe(library().definitions["ismabs"])
    assert not outcome.ok
    assert outcome.what == "reports an error and returns numbers all the same"
    assert "unable to read cross sections" in outcome.said


def test_defaults_that_fail_do_not_bar_values_that_work(xspec_library):
    luminosity = xspec_component("clumin")
    grid, flux = Grid(np.linspace(0.5, 10.0, 96)), torch.ones(95, dtype=torch.float64)
    values = {p.name: torch.tensor([p.default], dtype=torch.float64) for p in luminosity.parameters}
    with pytest.raises(
        UserError, match=r"clumin: it returns zeros only when tried at its default parameters: its default redsh"
    ):
        luminosity.apply(grid, lambda g: flux, **values)
    values["Redshift"] += 0.1
    once = luminosity.apply(grid, lambda g: flux, **values)
    values["lg10Lum"] += 1.0
    np.testing.assert_allclose(luminosity.apply(grid, lambda g: flux, **values).numpy(), 10.0 * once.numpy(), rtol=1e-6)


def test_a_library_that_dies_while_loading_is_reported(xspec_library, monkeypatch, tmp_path):
    manager = tmp_path / "spectral" / "manager"
    manager.mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (manager / "model.dat").write_text('powerlaw 1 0. 1.e20 C_powerLaw add 0\nPhoIndex "" 1. -3. -2. 9. 10. 0.01\n')
    monkeypatch.setenv("HEADAS", str(tmp_path))
    monkeypatch.setattr("deepspec.models.xspec.library._LIBRARIES", {})
    assert available()[0]
    with pytest.raises(UserError, match=r"cannot be loaded from .*; unset HEADAS"):
        xspec_component("powerlaw")


def test_nothing_installed_is_one_sentence(monkeypatch):
    monkeypatch.setattr("deepspec.models.xspec.library._installed", lambda name: False)
    assert available() == (False, "XSPEC's models are not installed; pip install deepspec[xspec].")
    with pytest.raises(UserError, match=r"pip install deepspec\[xspec\]"):
        xspec_component("apec")
