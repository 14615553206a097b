"""Figures of the learned component: what is drawn is taken out again and compared; they can be read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.inference.posterior import posterior_draws
from deepspec.learned.checkpoint import read_weights, write_weights
from deepspec.learned.decoder import ComposedDecoder
from deepspec.learned.grids import CENTRES, ENERGY_WEIGHTS, STEP
from deepspec.learned.modules import make_weights
from deepspec.learned.oracle import OracleConfig, build_oracle
from deepspec.plots import learned, recipes
from deepspec.plots.reconstruction import Band, joined_totals, plot_reconstruction, power_of_ten, short
from deepspec.problem import Problem
from learned.toy_weights import toy_modules, toy_weights
from toy import toy_observation

MODEL = "tbabs*powerlaw"


def toy_decoder(**settings) -> ComposedDecoder:
    return ComposedDecoder(*toy_modules(**settings)).eval()


def texts_apart(figure) -> None:
    """No tick label, axis label or text lies on another one or outside the picture."""
    figure.canvas.draw()
    renderer, box = figure.canvas.get_renderer(), figure.bbox
    found = [figure._supylabel] if figure._supylabel else []
    for axes in figure.axes:
        if axes.get_visible():
            found += [axes.xaxis.label, axes.yaxis.label, *axes.texts]
            found += [t for t in axes.get_xticklabels() + axes.get_yticklabels() if _within(axes, t)]
    shown = [(t, t.get_window_extent(renderer)) for t in found if t.get_visible() and t.get_text()]
    for i, (text, here) in enumerate(shown):
        assert box.x0 - 1 <= here.x0, text
        assert here.x1 <= box.x1 + 1, text
        assert box.y0 - 1 <= here.y0, text
        assert here.y1 <= box.y1 + 1, text
        for other, there in shown[:i]:
            # a pixel of the boxes is empty
            across = min(here.x1, there.x1) - max(here.x0, there.x0) > 2.5
            assert not (across and min(here.y1, there.y1) - max(here.y0, there.y0) > 2.5), (text, other)


def _within(axes, label) -> bool:
    """True for tick labels inside the limits: matplotlib keeps those outside, undrawn."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    along = label in axes.get_xticklabels()
    value = label.get_position()[0 if along else 1]
    return min(x0, x1) <= value <= max(x0, x1) if along else min(y0, y1) <= value <= max(y0, y1)


# --- templates ------------------------------------------------------------------------------------------------------


def test_a_template_is_the_factor_of_one_standard_deviation():
    """The spectrum of a decoder moved by one standard deviation of one amplitude, but for a power law."""
    decoder = toy_decoder(flow=False)
    inner, k = decoder.decoder, 2
    effect = learned.template_effects(decoder)[k] ** learned.template_signs(decoder)[k]
    amplitude = learned.coefficients(decoder).double()
    with torch.no_grad():
        table = inner.table()
        change = (amplitude[:, k].std() * table.log[k].double()).numpy()
    x, inside = np.log(CENTRES), learned.INSIDE
    rest = (np.log(effect) - change)[inside]
    assert np.abs(rest - np.polyval(np.polyfit(x[inside], rest, 1), x[inside])).max() < 2e-3 * np.abs(change).max()
    assert np.abs(np.polyfit(x[inside], np.log(effect)[inside], 1)).max() < 1e-5


@pytest.mark.parametrize("combine", ["linear", "both"])
def test_templates_in_flux_share_the_photons(combine):
    decoder = toy_decoder(combine=combine, flow=False)
    shares = learned.template_effects(decoder)[decoder.decoder.config.logarithmic :]
    assert shares.min() >= 0
    total = shares.sum(0)
    if combine == "linear":
        assert total == pytest.approx(1.0, abs=1e-3)
    else:
        assert total.max() < 1.0


@pytest.mark.parametrize(
    "settings",
    [{}, {"combine": "linear"}, {"combine": "both"}, {"moving": 2}, {"latent": 1, "templates": 1, "flow": False}],
)
def test_templates_are_drawn_and_can_be_read(settings):
    decoder = toy_decoder(**settings)
    figure = learned.plot_components(decoder, most=6)
    texts_apart(figure)
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert len(drawn) == min(6, len(learned.template_curves(decoder)))
    effects = learned.template_effects(decoder)
    order = learned.by_effect(effects)
    assert drawn[0].lines[-1].get_ydata() == pytest.approx(effects[order[0]][learned.INSIDE])
    assert drawn[0].texts[0].get_text() == str(order[0] + 1)
    assert "keV" in drawn[-1].get_xlabel()
    assert "Si XIII" in [t.get_text() for t in drawn[0].texts]
    assert min(t.get_fontsize() for axes in drawn for t in axes.texts) >= 5.5


def test_lines_are_where_they_belong():
    """Energies of the lines as in textbooks, to 1 %."""
    known = {"O VIII": 0.6536, "O VII": 0.5740, "Fe Kα": 6.404, "Fe XXV": 6.700, "Si XIII": 1.865, "Ne X": 1.0218}
    for name, energy in known.items():
        assert learned.LINES[name] == pytest.approx(energy, rel=0.01)


def test_a_perceptron_has_no_templates():
    with pytest.raises(UserError, match="no templates"):
        learned.plot_components(toy_decoder(kind="mlp"))
    texts_apart(learned.plot_latents(toy_decoder(kind="mlp")))


# --- coordinates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 3, 6])
def test_coordinates_are_drawn_and_can_be_read(latent):
    decoder = toy_decoder(latent=latent, flow=latent > 1)
    figure = learned.plot_latents(decoder, reach=2.0, count=5)
    texts_apart(figure)
    upper, lower = figure.axes[0], figure.axes[1]
    point = torch.zeros(latent)
    point[0] = 2.0
    with torch.no_grad():
        expected = (decoder(point).double().numpy() * CENTRES / STEP)[learned.INSIDE]
        centre = (decoder(torch.zeros(latent)).double().numpy() * CENTRES / STEP)[learned.INSIDE]
    assert upper.lines[4].get_ydata() == pytest.approx(expected, rel=1e-4)
    assert lower.lines[4].get_ydata() == pytest.approx(expected / centre, rel=1e-3)
    everything = np.concatenate([line.get_ydata() for axes in figure.axes[:-1:2] for line in axes.lines])
    low, high = upper.get_ylim()
    assert everything.max() < high
    # no more empty room below than the curves need
    assert low > 0.35 * max(everything.min(), 1e-3 * everything.max())


def test_the_unit_of_the_coordinates_figure_is_right():
    """The integral of E^2 N(E) over ln E is the energy flux that the label names."""
    curve = learned.traversals(toy_decoder(), [0.7])[0, 0]
    photons = curve * STEP / CENTRES
    assert float(photons @ ENERGY_WEIGHTS) == pytest.approx(1.0, rel=1e-5)


def test_senseless_traversals_are_refused():
    for reach, count in ((0.0, 9), (9.0, 9), (2.0, 1)):
        with pytest.raises(UserError, match="nothing to draw"):
            learned.plot_latents(toy_decoder(), reach, count)


# --- classes --------------------------------------------------------------------------------------------------------


def test_activation_is_the_mean_of_a_class_in_standard_deviations():
    decoder, rng = toy_decoder(), np.random.default_rng(1)
    latents = {"one": rng.normal(size=(300, 3)), "two_three": rng.normal(1.0, 1.0, size=(200, 3))}
    values = learned.mean_activation(decoder, latents)
    assert values.shape == (2, 8)
    assert values.sum(0) == pytest.approx(0.0, abs=1e-9)
    assert np.abs(values).max() < 1.5
    figure = learned.plot_activation(decoder, latents, most=5)
    texts_apart(figure)
    image = figure.axes[0].images[0].get_array()
    order = learned.by_effect(learned.template_effects(decoder))[:5]
    assert np.asarray(image) == pytest.approx((values * learned.template_signs(decoder))[:, order])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["one", "two three"]


def test_activation_wants_an_oracle(tmp_path):
    path = toy_weights(tmp_path)
    with pytest.raises(UserError, match="no oracle"):
        recipes.activation(path)
    decoder, flow = toy_modules()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        oracle = build_oracle(OracleConfig(latent=3, widths=(16,)))
    write_weights(path, make_weights(decoder, flow, oracle))
    texts_apart(recipes.activation(path, sources=300))
    with pytest.raises(UserError, match="too few"):
        recipes.activation(path, sources=10)


# --- reconstructions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    values = {"nH": 0.2, "PhoIndex": 1.8, "norm": 2e-4}
    observation, truth = toy_observation(MODEL, values, background=True)
    problem = Problem([observation], MODEL, parameters=truth)
    return problem, truth.vector(), posterior_draws(problem, truth.vector(), 200).theta


def test_bands_are_quantiles_of_the_draws(fitted):
    problem, theta, draws = fitted
    figure = plot_reconstruction(problem, theta, draws, min_sigma=0.0)
    texts_apart(figure)
    top, middle, bottom = figure.axes[:3]
    dataset = problem.datasets[0]
    model = problem.predict(draws)[0]
    total = (model + dataset.statistic.background(model)).numpy()
    width = dataset.binned.exposure * (dataset.binned.energy_high - dataset.binned.energy_low)
    outer, inner = (top.collections[i].get_paths()[0].vertices[:, 1] for i in _fills(top)[:2])
    low, high = np.quantile(total / width, [0.025, 0.975], axis=0)
    assert outer.min() == pytest.approx(low.min())
    assert outer.max() == pytest.approx(high.max())
    assert outer.max() > inner.max()
    assert inner.min() > outer.min()
    assert _fills(middle)
    assert _fills(bottom)


def _fills(axes) -> list[int]:
    from matplotlib.collections import PolyCollection

    return [i for i, c in enumerate(axes.collections) if isinstance(c, PolyCollection) and c.get_paths()]


def test_bands_hold_the_truth_about_as_often_as_they_say(fitted):
    """The unabsorbed spectrum that the counts were drawn from lies in the 95 % band nearly everywhere."""
    problem, theta, draws = fitted
    edges = np.geomspace(0.3, 10.0, 200)
    from deepspec.models.base import Grid
    from deepspec.plots.reconstruction import unabsorbed_curves

    grid = Grid(edges)
    truth = unabsorbed_curves(problem, theta, grid).reshape(-1)
    ends = Band.of(unabsorbed_curves(problem, draws, grid)).ends
    assert np.mean((truth > ends[0]) & (truth < ends[3])) > 0.9
    middle = np.sqrt(edges[1:] * edges[:-1])
    # theta is the truth: norm x E^(2 - index), no absorption
    assert truth == pytest.approx(2e-4 * middle**0.2, rel=1e-3)


def test_points_join_bins_of_the_draws_too(fitted):
    from deepspec.plots.points import make_points

    problem, theta, draws = fitted
    points = make_points(problem.datasets[0], problem.predict(theta)[0], 5.0)
    totals = joined_totals(problem.datasets[0], points, problem.predict(draws)[0])
    assert totals.shape == (200, len(points))
    assert totals.mean(0) == pytest.approx(points.model + points.background, rel=0.3)


def test_a_known_spectrum_is_drawn_beside_the_band(fitted):
    problem, theta, draws = fitted
    edges = np.geomspace(0.2, 14.0, 300)
    photons = 2e-4 * np.diff(edges**-0.8) / -0.8
    figure = plot_reconstruction(problem, theta, draws, truth={"the truth": (edges, photons)})
    texts_apart(figure)
    line = figure.axes[2].lines[-1]
    middle = np.sqrt(edges[1:] * edges[:-1])
    assert line.get_ydata() == pytest.approx(2e-4 * line.get_xdata() ** 0.2, rel=1e-3)
    assert set(line.get_xdata()) == set(middle[(middle > 0.3) & (middle < 10.0)])
    assert "the truth" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_two_cameras_and_few_counts_can_be_drawn():
    values = {"nH": 0.2, "PhoIndex": 1.8, "norm": 2e-6}
    first, _ = toy_observation(MODEL, values, seed=1, name="one")
    second, _ = toy_observation(MODEL, values, seed=2, name="two")
    problem = Problem([first, second], MODEL, crosscal=True)
    for key in values:
        problem = problem.with_parameters(problem.parameters.set(key, values[key]))
    theta = problem.parameters.vector()
    draws = posterior_draws(problem, theta, 80).theta
    figure = plot_reconstruction(problem, theta, draws)
    texts_apart(figure)
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"one", "two", "68 % of the posterior", "95 %"} <= set(words)
    assert len(words) == len(set(words))


def test_words():
    assert short("tbabs*deepspec{/some/where/w.h5}+deepspec{mine}") == "tbabs*deepspec{w.h5}+deepspec{mine}"
    assert power_of_ten(1e-4) == "$10^{-4}$"
    assert power_of_ten(0.002) == r"$2\times10^{-3}$"


# --- recipes --------------------------------------------------------------------------------------------------------


def test_weights_enter_the_model(tmp_path):
    path = toy_weights(tmp_path)
    assert recipes.with_weights("tbabs*deepspec", None) == "tbabs*deepspec"
    assert recipes.with_weights("tbabs*(deepspec+gauss)", str(path)) == f"tbabs*(deepspec{{{path}}}+gauss)"
    for model in ("tbabs*powerlaw", "tbabs*deepspec{mine}"):
        with pytest.raises(UserError, match="does not leave open"):
            recipes.with_weights(model, str(path))


def test_pictures_are_written_whole_in_known_formats(tmp_path):
    figure = learned.plot_components(toy_decoder(), most=2)
    for name in ("a.png", "a.pdf", "a.svg"):
        path = recipes.save(figure, tmp_path / name, dpi=60)
        first = path.read_bytes()
        assert len(first) > 2000
        if name != "a.svg":  # whose marks have random names
            assert recipes.save(figure, path, dpi=60).read_bytes() == first
    with pytest.raises(UserError, match="known kind of picture"):
        recipes.save(figure, tmp_path / "a.doc")
    with pytest.raises(UserError, match="folder does not exist"):
        recipes.save(figure, tmp_path / "none" / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg"]


def test_too_few_draws_are_refused(fitted):
    problem, theta, _ = fitted
    with pytest.raises(UserError, match="too few"):
        recipes.reconstruction(problem, theta, count=20)
    made = recipes.reconstruction(problem, theta, count=60, seed=5)
    assert "60 draws" in str(made)
    assert "seed 5" in str(made)
    assert made.warnings == ()


def test_the_weights_of_the_toy_are_read(tmp_path):
    path = toy_weights(tmp_path)
    assert read_weights(path).latent == 3
    assert isinstance(path, Path)
    texts_apart(recipes.components(path, most=4))
    texts_apart(recipes.latents(path, 1.0, 3))


def test_names_of_neighbouring_lines_are_joined():
    names = learned.line_names()
    assert names["O VII, VIII"] == pytest.approx(0.613, abs=0.002)
    assert names["Fe Kα, XXV"] == pytest.approx(6.55, abs=0.01)
    energies = list(names.values())
    assert min(b / a for a, b in pairwise(energies)) > 1.12
