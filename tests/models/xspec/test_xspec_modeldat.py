"""XSPEC's list of models as read by us."""

from __future__ import annotations

import json

import pytest

from deepspec.errors import UserError
from deepspec.models.xspec import modeldat
from deepspec.models.xspec.library import library

TEXT = """
agauss         2   0.         1.e20          C_agauss  add  0
LineE   A      10.0   0.      0.      1.e6      1.e6      0.01
Velocity "km/s" 0.    0.      0.      1.e4   1.e4         -10.0

odd            5   0.         1.e20          oddity  mul  0 1
$switch    1     0       0     1      1       -1
*pivotE keV 1.0
phase   " "  0.1  0. 0. 1. 1. 0.01 P
phase   ""   0.2  0. 0. 1. 1. 0.01
R_hot "Rg " 10.0 2.0 2.0 500 500 0.01
"""


def test_models_parameters_and_units():
    models = modeldat.parse_model_dat(TEXT)
    line, velocity = models["agauss"].entries
    assert (line.name, line.unit, line.default, line.limits, line.frozen) == (
        "LineE",
        "A",
        10.0,
        (0, 0, 1e6, 1e6),
        False,
    )
    assert (velocity.unit, velocity.frozen, velocity.delta) == ("km/s", True, -10.0)
    assert models["agauss"].describe() == "additive: LineE [A], Velocity [km/s]"


def test_switches_scales_periods_and_repeated_names():
    odd = modeldat.parse_model_dat(TEXT)["odd"]
    assert [entry.name for entry in odd.entries] == ["switch", "pivotE", "phase", "phase_2", "R_hot"]
    assert odd.switches == (0,)
    assert [entry.frozen for entry in odd.entries] == [True, True, False, False, False]
    assert odd.entries[1].limits is None
    assert odd.entries[4].unit == "Rg"


@pytest.mark.parametrize(
    ("function", "symbol", "single"),
    [
        ("C_apec", "C_apec", False),
        ("c_xszbabs", "xszbabs", False),
        ("F_Xyz", "xyz_", False),
        ("agnSED", "agnsed_", True),
    ],
)
def test_symbol_and_precision(function, symbol, single):
    assert modeldat.symbol_of(function) == (symbol, single)


@pytest.mark.parametrize(
    "text", ["", "not a model file\n", "m 2 0. 1. C_m add 0\nkT keV 1.\n", "m 1 0. 1. C_m add 0\nkT keV\n"]
)
def test_other_files_are_refused_by_name(tmp_path, text):
    file = tmp_path / "model.dat"
    file.write_text(text)
    with pytest.raises(UserError, match=r"model\.dat.*HEADAS"):
        modeldat.read_model_dat(file)


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.dat: cannot be read"):
        modeldat.read_model_dat(tmp_path / "model.dat")


def test_all_models_of_the_library_as_recorded(xspec_library, shared_data):
    recorded = json.loads((shared_data / "xspec_reference" / "model_list.json").read_text())
    definitions = library().definitions
    assert len(definitions) == len(recorded) == 311
    for name, model in recorded.items():
        entries = definitions[name.lower()].entries
        assert [(e.name, e.unit, e.default, e.frozen) for e in entries] == [
            (p["name"], p["unit"], p["default"], p["frozen"]) for p in model["pars"]
        ]
