"""A result is one JSON document that says the same when read back, and has what its users were promised."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.inference.profile import Interval
from deepspec.problem import Problem
from deepspec.results import FORMAT, FluxResult, load_result
from deepspec.summary import flux_results, limit_warnings, parameter_results, start_warning, statistic_result
from toy import toy_observation

DATA = Path(__file__).resolve().parents[1] / "data"
MODEL = "tbabs*powerlaw"
VALUES = {"nH": 0.2, "PhoIndex": 1.8, "norm": 1e-3}


@pytest.fixture(scope="module")
def result():
    import deepspec

    return deepspec.fit(DATA / "faint_a.pha", MODEL, notice=(0.5, 7), goodness=2, steppar="PhoIndex=1:2:3").result


@pytest.fixture(scope="module")
def problem():
    observation, truth = toy_observation(MODEL, VALUES)
    return Problem([observation], MODEL, parameters=truth)


def test_read_back_it_is_the_same(result, tmp_path):
    result.save(tmp_path / "result.json")
    again = load_result(tmp_path / "result.json")
    assert again.to_dict() == result.to_dict()
    assert dataclasses.asdict(again).keys() == dataclasses.asdict(result).keys()
    assert again.fluxes == result.fluxes
    assert again.parameters == result.parameters


def test_the_document_has_what_was_promised(result):
    found = json.loads(result.to_json())
    assert found["model"] == MODEL
    assert {"name", "value", "dof", "bins"} <= found["statistic"].keys()
    assert list(found["parameters"]) == ["tbabs.nH", "powerlaw.PhoIndex", "powerlaw.norm"]
    for item in found["parameters"].values():
        assert {"value", "unit", "frozen", "lower68", "upper68"} <= item.keys()
    assert [f["band"] for f in found["fluxes"]] == [[0.5, 2.0], [0.5, 2.0], [2.0, 10.0], [2.0, 10.0]]
    for flux in found["fluxes"]:
        assert flux["kind"] in ("observed", "unabsorbed")
        assert flux["unit"] == "erg cm^-2 s^-1"
        assert {"value", "lower68", "upper68"} <= flux.keys()
    for item in found["data"]:
        assert {"file", "hash", "counts", "exposure"} <= item.keys()
    assert {"command", "deepspec", "torch", "numpy", "sherpa", "python", "seed", "time"} <= found["provenance"].keys()


def test_no_number_that_json_does_not_know(result):
    broken = dataclasses.replace(
        result, engine={"a": math.nan, "b": np.float64("inf"), "c": np.int64(3), "d": torch.ones(2)}
    )
    assert json.loads(broken.to_json())["engine"] == {"a": None, "b": None, "c": 3, "d": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no such file"),
        ("", "no readable JSON"),
        ("[1, 2]", "not a result of deepspec"),
        ('{"format": 1}', "not a result of deepspec"),
        (json.dumps({"format": FORMAT + 1, "config": {}}), "newer deepspec"),
        (json.dumps({"format": FORMAT, "config": {}}), "damaged"),
        ("\udcff", "no readable JSON"),
    ],
)
def test_files_that_are_no_result(tmp_path, text, sentence):
    path = tmp_path / "result.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=sentence) as caught:
        load_result(path)
    assert str(path) in str(caught.value)


# --- the parts ------------------------------------------------------------------------------------------------------


def covariance(*sigma):
    return torch.diag(torch.tensor(sigma, dtype=torch.float64) ** 2)


def test_covariance_gives_symmetric_intervals_that_stop_at_limits(problem):
    theta = torch.tensor([0.01, 1.8, 1e-3], dtype=torch.float64)
    found = parameter_results(problem, theta, covariance(0.02, 0.1, 1e-4), (), ())
    nH, index, norm = found.values()
    assert (nH.lower68, nH.upper68, nH.at_limit) == (0.0, pytest.approx(0.03), True)
    assert (index.lower68, index.upper68, index.at_limit) == (pytest.approx(1.7), pytest.approx(1.9), False)
    assert norm.errors == "covariance"


def test_no_covariance_no_interval(problem):
    theta = torch.tensor([0.1, 1.8, 1e-3], dtype=torch.float64)
    found = parameter_results(problem, theta, covariance(math.nan, 0.1, 1e-4), ("tbabs.nH",), ())
    assert found["tbabs.nH"].lower68 is None
    assert found["tbabs.nH"].upper68 is None
    assert found["tbabs.nH"].at_limit


def test_profiles_stand_in_place_of_the_covariance(problem):
    theta = torch.tensor([0.1, 1.8, 1e-3], dtype=torch.float64)
    profiles = [Interval("tbabs.nH", 0.0, 0.25, False, True)]
    wider = [Interval("tbabs.nH", 0.0, 0.4, False, True)]
    item = parameter_results(problem, theta, covariance(0.1, 0.1, 1e-4), (), profiles, wider)["tbabs.nH"]
    assert (item.lower68, item.upper68, item.errors, item.at_limit) == (0.0, 0.25, "profile", True)
    assert (item.lower, item.upper) == (0.0, 0.4)


def test_statistic_is_summed_over_observations():
    one, truth = toy_observation(MODEL, VALUES, seed=1, name="one")
    two, _ = toy_observation(MODEL, VALUES, seed=2, background=True, name="two")
    problem = Problem([one, two], MODEL, parameters=truth)
    theta = problem.parameters.vector()
    found = statistic_result(problem, theta)
    assert found.value == pytest.approx(float(problem.statistic(theta)))
    assert found.name == "cstat+wstat"
    assert [p["name"] for p in found.per_data] == ["one", "two"]
    assert found.expected is None


def test_expected_statistic_of_simulated_data(problem):
    found = statistic_result(problem, problem.parameters.vector())
    assert abs(found.value - found.expected) < 4 * found.expected_sigma
    assert 0 < found.expected_p < 1


def test_luminosity_is_the_flux_of_a_nearby_source(problem):
    """At a redshift so small that bands do not shift, L = 4 pi d^2 F with d = c z / H0."""
    theta, redshift = problem.parameters.vector(), 1e-4
    found = {f.kind: f for f in flux_results(problem, theta, covariance(0.01, 0.1, 1e-4), [(2.0, 10.0)], redshift)}
    distance = 299792.458 * redshift / 70.0 * 3.0856775814913673e24
    assert found["luminosity"].value == pytest.approx(4 * math.pi * distance**2 * found["unabsorbed"].value, rel=1e-3)
    assert found["luminosity"].unit == "erg s^-1"


def test_fluxes_beyond_the_data_are_marked(problem):
    bands = [(0.5, 8.0), (0.1, 1.0), (5.0, 20.0)]
    found = flux_results(problem, problem.parameters.vector(), covariance(0.01, 0.1, 1e-4), bands, None)
    assert [f.outside_data for f in found if f.kind == "observed"] == [False, True, True]
    assert all(isinstance(f, FluxResult) for f in found)


def test_limits_and_lonely_starts_are_warned_of(problem):
    theta = torch.tensor([0.0, 1.8, 1e-3], dtype=torch.float64)
    (text,) = limit_warnings(problem, theta, ["tbabs.nH"])
    assert "tbabs.nH ended at its lower limit 0" in text
    assert start_warning(16, 1)[0].startswith("only 1 start of 16 came within 0.1")
    assert start_warning(16, 8) == []
    assert start_warning(1, 1) == []
