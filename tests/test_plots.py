"""Figures show what was fitted: the numbers in them are taken out again and compared; they draw from any fit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.models.base import Grid
from deepspec.plots import plot_spectrum, plot_steppar, plot_unfolded
from deepspec.plots.points import WIDEST, joined, make_points, poisson_errors
from deepspec.plots.spectrum import folded_terms
from deepspec.plots.unfolded import unfolding
from deepspec.problem import Problem
from toy import toy_observation

DATA = Path(__file__).resolve().parents[1] / "data"
VALUES = {"nH": 0.2, "PhoIndex": 1.8, "powerlaw.norm": 1e-3, "kT": 0.3, "bbody.norm": 2e-5}
MODEL = "tbabs*(powerlaw+bbody)"


def toy_problem(scale=1.0, background=True, **options):
    values = {k: v * scale if "norm" in k else v for k, v in VALUES.items()}
    observation, truth = toy_observation(MODEL, values, background=background)
    return Problem([observation], MODEL, parameters=truth, **options)


def drawn(figure, tmp_path):
    """The figure saved; every text inside the picture."""
    figure.savefig(tmp_path / "x.png", dpi=100)
    assert (tmp_path / "x.png").stat().st_size > 3000
    renderer = figure.canvas.get_renderer()
    box = figure.bbox
    for axes in figure.axes:
        for label in (axes.xaxis.label, axes.yaxis.label):
            if label.get_visible() and label.get_text():
                extent = label.get_window_extent(renderer)
                assert box.x0 <= extent.x0
                assert extent.x1 <= box.x1 + 1
                assert extent.y1 <= box.y1 + 1
    return figure


# --- points ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.floats(0.0, 6.0),
    st.sets(st.integers(1, 59), max_size=3),
)
def test_joined_bins_are_significant_and_cross_no_gap(counts, min_sigma, gaps):
    counts = np.array(counts, dtype=float)
    width = 0.03 * np.ones(len(counts))
    low = 0.5 + np.cumsum(width) + np.array([sum(g <= i for g in gaps) for i in range(len(counts))]) * 0.5
    first = joined(low, low + width, counts, counts, min_sigma)
    assert first[0] == 0
    assert np.all(np.diff(first) > 0)
    assert {g for g in gaps if g < len(counts)} <= set(first)
    summed = np.add.reduceat(counts, first)
    last = np.append(first[1:], len(counts)) - 1
    for i, n in enumerate(summed[:-1]):
        at_gap = last[i] + 1 in gaps
        wide = np.log((low + width)[last[i] + 1] / low[first[i]]) > WIDEST
        assert n >= min_sigma**2 - 1e-9 or at_gap or wide
    assert summed.sum() == counts.sum()


def test_poisson_errors_are_gehrels():
    """Table 1 and 2 of Gehrels (1986) at S = 1."""
    down, up = poisson_errors(np.array([0.0, 1.0, 5.0, 20.0]))
    assert up == pytest.approx([1.841, 2.300, 3.382, 5.546], abs=2e-3)
    assert down == pytest.approx([0.0, 0.827, 2.159, 4.434], abs=2e-3)


@pytest.mark.parametrize("statistic", ["cstat", "wstat", "chi2", "chi2gehrels"])
def test_points_hold_all_counts_of_data_model_and_background(statistic):
    problem = toy_problem(statistic=statistic)
    dataset, theta = problem.datasets[0], problem.parameters.vector()
    model = problem.predict(theta)[0]
    found = make_points(dataset, model, 5.0)
    assert found.counts.sum() == dataset.binned.counts.sum()
    assert found.model.sum() == pytest.approx(float(model.sum()))
    assert len(found) < len(dataset.binned)
    background = float(dataset.statistic.background(model).sum())
    assert found.background.sum() == pytest.approx(background)
    assert (background > 0) == (statistic != "cstat")
    assert np.all(found.variance > 0)


def test_residuals_of_a_right_model_are_normal():
    problem = toy_problem(statistic="wstat")
    model = problem.predict(problem.parameters.vector())[0]
    residual = make_points(problem.datasets[0], model, 5.0).residual
    assert abs(residual.mean()) < 4 / np.sqrt(len(residual))
    assert 0.7 < residual.std() < 1.35


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_the_line_is_model_plus_profiled_background(tmp_path):
    problem = toy_problem(statistic="wstat")
    theta, dataset = problem.parameters.vector(), problem.datasets[0]
    figure = drawn(plot_spectrum(problem, theta, min_sigma=0.0), tmp_path)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    model = problem.predict(theta)[0]
    total = (model + dataset.statistic.background(model)).numpy()
    width = dataset.binned.energy_high - dataset.binned.energy_low
    values = lines["model + background"].get_ydata()[:-1:2]
    assert values == pytest.approx(total / width / dataset.binned.exposure)
    scaled = (dataset.binned.background * dataset.binned.ratio) / width / dataset.binned.exposure
    assert lines["background, scaled"].get_ydata()[:-1:2] == pytest.approx(scaled)


def test_terms_add_up_to_the_model():
    problem = toy_problem()
    theta = problem.parameters.vector()
    (terms,) = folded_terms(problem, theta)
    assert list(terms) == ["powerlaw", "bbody"]
    assert sum(terms.values()) == pytest.approx(problem.predict(theta)[0].numpy())


def test_terms_follow_the_constant_of_their_camera():
    first, _ = toy_observation(MODEL, VALUES, seed=1, name="one")
    second, _ = toy_observation(MODEL, VALUES, seed=2, name="two")
    problem = Problem([first, second], MODEL, crosscal=True)
    theta = problem.parameters.set("crosscal_2.factor", 1.3).vector()
    terms = folded_terms(problem, theta)
    assert sum(terms[1].values()) == pytest.approx(1.3 * sum(terms[0].values()))


def test_unfolded_points_of_perfect_data_lie_on_the_model():
    problem = toy_problem(background=False)
    theta, dataset = problem.parameters.vector(), problem.datasets[0]
    model = problem.predict(theta)[0]
    found = make_points(dataset, model, 0.0)
    low, high = dataset.binned.energy_low[0], dataset.binned.energy_high[-1]
    grid = Grid(np.geomspace(low, high, 3001))
    flux = problem.model.flux(grid, problem.parameters.expand(theta)).reshape(-1).numpy()
    value = unfolding(found, grid, flux) * found.model
    smooth = np.interp(found.middle, grid.middle.numpy(), flux * grid.middle.numpy() ** 2 / grid.width.numpy())
    away = found.middle > 0.8  # from the oxygen edge, which is narrower than a bin
    assert value[away] == pytest.approx(smooth[away], rel=0.02)


@pytest.mark.parametrize("scale", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("background", [True, False])
def test_few_counts_can_be_drawn(scale, background, tmp_path):
    problem = toy_problem(scale, background)
    for make in (plot_spectrum, plot_unfolded):
        drawn(make(problem, problem.parameters.vector()), tmp_path)


def test_no_counts_at_all_can_be_drawn(tmp_path):
    problem = toy_problem(background=False)
    problem = problem.with_statistics([type(problem.datasets[0].statistic).from_tensors(torch.zeros(80))])
    dataset = problem.datasets[0]
    dataset.binned = dataclasses.replace(dataset.binned, counts=np.zeros(80))
    for make in (plot_spectrum, plot_unfolded):
        drawn(make(problem, problem.parameters.vector()), tmp_path)


def test_ignored_energies_break_the_line():
    import deepspec

    ready = deepspec.read(DATA / "faint_a.pha").notice(0.5, 1.5).notice(3, 7)
    fitted = deepspec.fit(ready, "powerlaw", starts=1)
    figure = plot_spectrum(fitted.problem, fitted.theta)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "model + background")
    assert np.isnan(line.get_ydata()).sum() == 2
    x = line.get_xdata()
    assert not np.any((x > 1.6) & (x < 2.9))


def test_energies_are_plain_numbers_and_labels_have_units(tmp_path):
    problem = toy_problem()
    figure = drawn(plot_spectrum(problem, problem.parameters.vector()), tmp_path)
    top, bottom = figure.axes
    assert {"0.5", "1", "2", "5"} <= {t.get_text() for t in bottom.get_xticklabels()}
    assert "keV" in bottom.get_xlabel()
    assert "keV$^{-1}$" in top.get_ylabel()
    words = [t.get_text() for t in bottom.texts]
    assert words == ["σ: of the model and background counts"]
    unfolded = drawn(plot_unfolded(problem, problem.parameters.vector()), tmp_path)
    assert "keV cm$^{-2}$ s$^{-1}$" in unfolded.axes[0].get_ylabel()


def test_the_legend_is_off_the_data(tmp_path):
    problem = toy_problem()
    for make in (plot_spectrum, plot_unfolded):
        figure = drawn(make(problem, problem.parameters.vector()), tmp_path)
        (legend,) = figure.legends
        renderer = figure.canvas.get_renderer()
        assert legend.get_window_extent(renderer).y0 >= figure.axes[0].get_window_extent(renderer).y1


# --- steppar --------------------------------------------------------------------------------------------------------


def curve(value):
    return {"names": ["a.x"], "units": ["keV"], "axes": [[0.0, 1.0, 2.0]], "value": value, "best": 10.0, "at": [1.0]}


def test_a_curve_is_the_rise(tmp_path):
    figure = drawn(plot_steppar(curve([12.0, 10.0, 14.0])), tmp_path)
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.0, 0.0, 4.0]
    assert figure.axes[0].get_xlabel() == "a.x  [keV]"
    assert [t.get_text() for t in figure.axes[0].texts] == ["68.3 % (1)", "90 % (2.706)"]


def test_points_that_failed_leave_a_gap(tmp_path):
    figure = drawn(plot_steppar(curve([12.0, None, 14.0])), tmp_path)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[1])


def test_contours_enclose_what_they_should(tmp_path):
    """For a paraboloid the contour of 2.296 is the circle of that radius squared."""
    x, y = np.linspace(-4, 4, 81), np.linspace(-4, 4, 61)
    value = 10.0 + x[:, None] ** 2 + y[None, :] ** 2
    grid = {
        "names": ["a.x", "a.y"],
        "units": ["", "10^22"],
        "axes": [x, y],
        "value": value,
        "best": 10.0,
        "at": [0.0, 0.0],
    }
    figure = drawn(plot_steppar(grid), tmp_path)
    (contours,) = [c for c in figure.axes[0].collections if hasattr(c, "levels")]
    assert list(contours.levels) == [2.296, 4.605, 9.210]
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        assert (path.vertices**2).sum(axis=1) == pytest.approx(level, abs=0.02)
    assert figure.axes[0].get_ylabel() == "a.y  [10$^{22}$ cm$^{-2}$]"


def test_a_grid_without_a_contour_says_so(tmp_path):
    grid = {
        "names": ["a.x", "a.y"],
        "units": ["", ""],
        "axes": [[0, 1], [0, 1]],
        "value": [[90, 91], [92, 93]],
        "best": 10.0,
    }
    figure = drawn(plot_steppar({**grid, "at": [5.0, 5.0]}), tmp_path)
    assert figure.axes[0].texts[0].get_text() == "no confidence contour crosses this grid"


def test_a_grid_read_back_draws_the_same(tmp_path):
    import deepspec

    fitted = deepspec.fit(DATA / "faint_a.pha", "powerlaw", notice=(0.5, 7), steppar="PhoIndex=1:2:5", starts=1)
    fitted.save(tmp_path, plots=False)
    grids = [fitted.result.grids[0], deepspec.load_result(tmp_path / "result.json").grids[0]]
    curves = [plot_steppar(grid).axes[0].lines[0].get_ydata() for grid in grids]
    assert np.array_equal(*curves)


def test_no_global_state_of_matplotlib_is_touched():
    code = (
        "import matplotlib; before = matplotlib.rcParams.copy(); import sys\n"
        "import deepspec.plots\n"
        "assert matplotlib.rcParams.copy() == before; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
