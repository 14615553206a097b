"""`deepspec models`: every component, its parameters, units and limits."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from deepspec.models import COMPONENTS
from deepspec.models.xspec import available
from deepspec_cli.main import main


def models(*arguments):
    return CliRunner().invoke(main, ["models", *arguments])


def test_all_native_components_are_listed():
    result = models()
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines() if line[:1].isalpha()} >= set(COMPONENTS)


def test_one_component_in_full():
    text = models("tbabs").stdout
    for part in ("tbabs  multiplicative, native", "nH", "10^22 cm^-2", "Source: Wilms"):
        assert part in text


def test_abbreviations_and_several_names():
    result = models("po", "bb")
    assert "powerlaw  additive" in result.stdout
    assert "bbody  additive" in result.stdout


def test_a_kind():
    found = json.loads(models("--kind", "convolution", "--json").stdout)["components"]
    assert {item["kind"] for item in found} == {"convolution"}
    assert "cflux" in {item["name"] for item in found}


def test_json_has_what_a_program_needs():
    result = models("--json")
    found = {item["name"]: item for item in json.loads(result.stdout)["components"]}
    assert set(found) == set(COMPONENTS)
    norm = found["powerlaw"]["parameters"][-1]
    assert (norm["name"], norm["hard_min"], norm["frozen"]) == ("norm", 0.0, False)
    assert found["zpowerlw"]["parameters"][1] == {
        "name": "Redshift",
        "default": 0.0,
        "unit": "",
        "hard_min": -0.999,
        "soft_min": -0.999,
        "soft_max": 10.0,
        "hard_max": 10.0,
        "frozen": True,
        "switch": False,
        "prior": "",
    }
    assert found["deepspec"]["parameters"][0]["prior"] == "normal(0,1)"


@pytest.mark.parametrize(
    ("name", "sentence"), [("powerlow", "nearest names: .*powerlaw"), ("atable", "read from a file")]
)
def test_unknown_names(name, sentence):
    result = models(name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(sentence, result.stderr)


@pytest.mark.skipif(not available()[0], reason="no XSPEC library is installed")
def test_models_of_xspec():
    found = {item["name"]: item for item in json.loads(models("--xspec", "--json").stdout)["components"]}
    assert {"nthComp", "TBabs", "relxill", "apec"} & set(found)
    assert found["nthComp"]["kind"] == "additive"
    assert found["nthComp"]["parameters"][0]["name"] == "Gamma"
    assert "nthComp  additive, xspec" in models("nthcomp").stdout
    assert "powerlaw  additive, xspec" in models("xs_powerlaw").stdout
