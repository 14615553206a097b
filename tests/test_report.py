"""Text for people: digits that errors deserve, intervals, states, narrow windows, no control codes in a pipe."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.report import (
    as_text,
    component_details,
    component_table,
    console,
    fake_table,
    fit_table,
    flux_text,
    interval,
    quantity,
    state_of,
)
from deepspec.results import FluxResult, ParameterResult

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="module")
def result():
    import deepspec

    files = [DATA / "binary_a.pha", DATA / "binary_b.pha"]
    chosen = {"notice": (0.5, 8), "crosscal": True, "fix": "kT=0.35", "starts": 2, "goodness": 2, "redshift": 0.01}
    return deepspec.fit(files, "tbabs*(powerlaw+bbody)", **chosen).result


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.70321, 0.0213, "1.703"),
        (2.4913e-5, 3.1e-7, "2.491e-05"),
        (0.2079, 0.0097, "0.2079"),
        (12.3456, 2.0, "12.3"),
        (11526.0, None, "11526"),
        (0.02, None, "0.02"),
        (0.0, None, "0"),
        (0.0, 0.0123, "0.000"),
        (1.2e-12, None, "1.2000e-12"),
        (3.0e7, 2.0e5, "3.000e+07"),
        (-1.5, 0.25, "-1.50"),
        (float("nan"), None, "-"),
        (5.0, float("inf"), "5"),
    ],
)
def test_as_many_digits_as_the_error_deserves(value, error, text):
    assert quantity(value, error) == text


@given(st.floats(-1e8, 1e8), st.floats(1e-10, 1e8))
def test_what_is_shown_is_within_a_twentieth_of_the_error(value, error):
    assert abs(float(quantity(value, error)) - value) <= 0.051 * error


@pytest.mark.parametrize(
    ("lower", "value", "upper", "text"),
    [
        (0.9, 1.0, 1.1, "± 0.10"),
        (0.9, 1.0, 1.23, "-0.10 +0.23"),
        (None, 1.0, None, ""),
        (None, 1.0, 1.2, "+0.20"),
        (1e-5, 2e-5, 4e-5, "-1.0e-05 +2.0e-05"),
    ],
)
def test_intervals(lower, value, upper, text):
    assert interval(lower, value, upper) == text


def test_states():
    item = ParameterResult(1.0, "", False)
    assert state_of(item) == ""
    assert state_of(dataclasses.replace(item, frozen=True)) == "frozen"
    assert state_of(dataclasses.replace(item, link="2*a.b")) == "= 2*a.b"
    assert state_of(dataclasses.replace(item, at_limit=True)) == "at limit"
    assert state_of(dataclasses.replace(item, at_limit=True, lower68=0.0)) == "interval ends at a limit"
    assert state_of(dataclasses.replace(item, prior="normal(0,1)")) == "prior normal(0,1)"


def test_fluxes():
    flux = FluxResult((0.5, 2.0), "observed", 1.234e-13, "erg cm^-2 s^-1", 1.21e-13, 1.26e-13)
    assert flux_text(flux) == "(1.234 -0.024 +0.026)e-13"
    assert flux_text(dataclasses.replace(flux, lower68=None, upper68=None)) == "1.234e-13"
    assert flux_text(dataclasses.replace(flux, value=0.0)) == "0"


def test_the_table_says_everything(result):
    text = as_text(fit_table(result))
    for part in (
        "binary_a.pha", "binary_b.pha", "20,000.0 s", "touching: ", "grouping: optimal", "tbabs*(powerlaw+bbody)",
        "abundances wilm", "68 % interval", "10^22 cm^-2", "frozen", "crosscal_2", "degrees of freedom", "because",
        "simulated data sets", "starts within 0.1", "0.5-2", "2-10", "extrapolated", "luminosity", "erg s^-1",
    ):  # fmt: skip
        assert part in text, part
    for warning in result.warnings:
        assert warning[:30] in text


def test_a_fit_that_did_not_converge_is_marked(result):
    lost = dataclasses.replace(result, converged=False, message="not converged after 3 steps")
    assert "NOT CONVERGED: not converged after 3 steps" in as_text(fit_table(lost))
    assert "NOT CONVERGED" not in as_text(fit_table(result))


def test_limits_and_priors_are_seen(result):
    item = dataclasses.replace(result.parameters["tbabs.nH"], at_limit=True, lower68=None, upper68=None, prior="x(1,2)")
    other = dataclasses.replace(result, parameters={**result.parameters, "tbabs.nH": item}, warnings=("look here",))
    text = as_text(fit_table(other))
    assert "at limit, prior x(1,2)" in text
    assert "warning: look here" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_narrow_windows_lose_nothing(result, width):
    text = as_text(fit_table(result), width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    assert {"PhoIndex", "norm", "crosscal_2", "unabsorbed", "luminosity"} <= set(words)
    for item in result.parameters.values():
        assert any(
            word.startswith(f"{item.value:.2e}"[:3]) or word.startswith(f"{item.value:.2f}"[:3]) for word in words
        )


def test_no_control_codes_in_a_pipe(result):
    stream = io.StringIO()
    console(stream).print(fit_table(result))
    assert "\x1b" not in stream.getvalue()
    assert "\x1b" not in as_text(fit_table(result))
    assert not any(line != line.rstrip() for line in as_text(fit_table(result)).splitlines())


def test_components():
    from deepspec.catalogue import components

    assert "PhoIndex norm" in as_text(component_table(components()))
    text = as_text(component_details(components(["bb"])[0]))
    assert "bbody  additive, native" in text
    assert "Source: XSPEC manual" in text


def test_fakes():
    made = {
        "model": "powerlaw", "parameters": {"powerlaw.norm": 1e-3}, "exposure": 1000.0, "counts": 10.0,
        "background_counts": 3.0, "expected_source": 9.5, "expected_background": 1.0, "seed": 4, "notes": ["so"],
    }  # fmt: skip
    text = as_text(fake_table(made, [Path("a.pha"), Path("a_bkg.pha")]))
    for part in (
        "powerlaw.norm = 0.001",
        "1,000.0 s",
        "10 drawn",
        "3 drawn in the background",
        "note: so",
        "a.pha, a_bkg.pha",
    ):
        assert part in text
