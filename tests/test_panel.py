"""The comparison on real spectra: panel, bins, halves, summary, and the learned fit against the general engine."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.io import read_observation
from deepspec.learned.checkpoint import Weights, read_weights, write_weights
from deepspec.learned.decoder import DecoderConfig, build_decoder
from deepspec.learned.flow import FlowConfig, build_flow
from deepspec.learned.grids import DETECTOR_EDGES, EDGES
from deepspec.learned.modules import checked, section
from deepspec.models.model import Model
from deepspec.problem import Problem, default_parameters

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("panel", "real_tables", "learned_map", "real_spectra")


@pytest.fixture(scope="module")
def modules():
    """The files of benchmarks/, which is no package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def panel(modules):
    return modules["panel"]


@pytest.fixture(scope="module")
def observation(panel):
    return panel.rebinned(read_observation(ROOT / "data" / "binary_a.pha"), (0.5, 8.0))


@pytest.fixture(scope="module")
def bins(panel, observation):
    return panel.bins_of(observation)


def weights(moving: int = 0, flow: bool = False, combine: str = "log") -> Weights:
    torch.manual_seed(3)
    config = DecoderConfig(
        latent=3,
        templates=6,
        trunk_width=16,
        trunk_layers=1,
        branch=(8,),
        frequency=5.0,
        moving=moving,
        combine=combine,
    )
    made = build_flow(FlowConfig(latent=3, transforms=1, bins=4, hidden=(8,))) if flow else None
    return checked(Weights(section(build_decoder(config)), None if made is None else section(made)))


# --- panel and bins -------------------------------------------------------------------------------------------------


def test_free_parameters_are_those_of_the_protocol(panel):
    assert [model.free for model in panel.PANEL] == [3, 3, 3, 3, 4, 5, 5, 6, 5]
    assert panel.ONE_COMPONENT == ("powerlaw", "bbody", "diskbb", "bremss", "mekal")


def test_every_shape_parameter_has_limits(panel):
    for model in panel.PANEL:
        free = [key for key in model.parameters().free if not key.endswith(".norm")]
        assert set(free) <= set(model.limits)
        for key in free:
            entry = model.parameters()[key]
            assert (entry.low, entry.high) == model.limits[key]


def test_bins_are_whole_bins_of_the_grid(observation):
    binned = observation.binned
    assert (binned.counts >= 1).all()
    used = np.flatnonzero(observation.binning.used)
    middle = observation.spectrum.energy_bounds.mean(1)
    assert middle[used].min() > 0.5
    assert middle[used].max() < 8.0
    # a bin never ends inside a bin of the grid
    number = np.searchsorted(DETECTOR_EDGES, middle[used], side="right")
    index = observation.binning.index[used]
    assert all(len(set(index[number == n])) == 1 for n in set(number))


def test_background_counts_where_the_background_matters(observation, panel):
    spectrum = observation.spectrum
    used = spectrum.usable
    matters = spectrum.scaled_background[used].sum() > 0.03 * spectrum.counts[used].sum()
    least = 0 if not matters else 5 if spectrum.background[used].sum() >= 300 else 1
    assert (observation.binned.background >= least).all()
    assert ("minbkg" in panel.merging(spectrum)) == matters


@given(st.lists(st.floats(0.05, 20.0), min_size=2, max_size=30, unique=True))
def test_shares_keep_photons(modules, edges):
    onto = np.unique(np.round(edges, 6))
    if len(onto) < 2:
        return
    found = modules["panel"].shares(EDGES, onto)
    low, high = np.log(np.clip(onto[[0, -1]], EDGES[0], EDGES[-1]))
    assert found.sum() == pytest.approx((high - low) / np.log(EDGES[1] / EDGES[0]), abs=1e-8)
    assert (found >= 0).all()
    assert (found.sum(1) <= 1 + 1e-9).all()


def test_halves_share_every_count(panel, bins):
    (first, region), (second, other) = panel.halves(bins, 5, "binary_a")
    assert np.array_equal(first + second, bins.counts)
    assert np.array_equal(region + other, bins.background)
    assert abs(first.sum() / bins.counts.sum() - 0.5) < 5 * 0.5 / np.sqrt(bins.counts.sum())
    (again, _), _ = panel.halves(bins, 5, "binary_a")
    (another, _), _ = panel.halves(bins, 6, "binary_a")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, another)


def test_digest_sees_counts_and_response(panel, observation, bins):
    assert panel.bins_of(observation).digest == bins.digest
    narrower = panel.rebinned(read_observation(ROOT / "data" / "binary_a.pha"), (0.5, 7.0))
    assert panel.bins_of(narrower).digest != bins.digest


# --- the learned fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"moving": 2}, {"flow": True}, {"combine": "both"}], ids=str)
def test_derivatives_are_exact(modules, bins, options):
    learned = modules["learned_map"]
    problem = learned.LearnedProblem(learned.Tabulated(weights(**options)), bins)
    theta = torch.tensor([[0.3, 0.5, -1.0, 0.2, 2.0], [2.0, 0.0, 0.7, -0.4, 0.1]], dtype=torch.float64)
    ((counts, columns),) = problem.jacobian(theta)
    assert torch.allclose(counts, problem.predict(theta)[0], rtol=1e-12)
    for k in range(theta.shape[1]):
        step = torch.zeros_like(theta)
        step[:, k] = 1e-5
        numeric = (problem.predict(theta + step)[0] - problem.predict(theta - step)[0]) / 2e-5
        assert torch.allclose(numeric, columns[:, k], rtol=1e-5, atol=1e-6 * float(columns[:, k].abs().max()))


def test_learned_fit_recovers_counts_of_its_own(modules, panel, bins):
    learned = modules["learned_map"]
    shapes = learned.Tabulated(weights())
    problem = learned.LearnedProblem(shapes, bins)
    truth = torch.tensor([0.2, 0.8, -0.5, 0.3, 1.0], dtype=torch.float64)
    truth[-1] *= 3e4 / float(problem.predict(truth)[0].sum())
    data = torch.as_tensor(np.random.default_rng(0).poisson(problem.predict(truth)[0].numpy() + 0.0).astype(float))
    known = learned.LearnedProblem(shapes, bins, panel.STATISTICS["cstat"].from_tensors(data))
    best = maximum(known, MaximumOptions(starts=8, draws=48))
    assert best.converged
    assert best.value <= float(known.objective(truth)) + 1e-6
    offset = 3 * np.log(2 * np.pi)
    assert best.value == pytest.approx(best.statistic + float((best.theta[1:-1] ** 2).sum()) + offset, rel=1e-9)
    free = learned.effective_parameters(known, best.theta)
    assert 2.0 < free <= 5.0


def test_effective_parameters_fall_with_the_counts(modules, panel, bins):
    learned = modules["learned_map"]
    shapes = learned.Tabulated(weights())
    theta = torch.tensor([0.2, 0.8, -0.5, 0.3, 1.0], dtype=torch.float64)
    found = []
    for total in (30.0, 3e3, 3e5):
        theta[-1] = 1.0
        probe = learned.LearnedProblem(shapes, bins)
        theta[-1] = total / float(probe.predict(theta)[0].sum())
        known = learned.LearnedProblem(shapes, bins, panel.STATISTICS["cstat"].from_tensors(probe.predict(theta)[0]))
        found.append(learned.effective_parameters(known, theta))
    assert found[0] < found[1] < found[2] <= 5.0 + 1e-9


def test_fit_is_that_of_the_component(modules, bins, observation, tmp_path):
    """The same spectrum, absorber and prior as tbabs*deepspec, whose absorber has the finer bins of the response."""
    write_weights(tmp_path / "toy.h5", weights())
    model = f"tbabs*deepspec{{{tmp_path / 'toy.h5'}}}"
    parameters = default_parameters(Model(model)).limit("tbabs.nH", 1e-4, 40.0)
    general = Problem([observation], model, "wstat", parameters)
    quick = modules["learned_map"].LearnedProblem(
        modules["learned_map"].Tabulated(read_weights(tmp_path / "toy.h5")), bins
    )
    options = MaximumOptions(starts=6, draws=36)
    slow, fast = maximum(general, options), maximum(quick, options)
    assert fast.statistic == pytest.approx(slow.statistic, rel=3e-4)
    assert fast.theta[-1] == pytest.approx(float(slow.theta[-1]), rel=2e-2)


# --- tables ---------------------------------------------------------------------------------------------------------


def row(**changes) -> dict:
    made = {
        "name": "acis_x", "camera": "Chandra", "band": [0.5, 8.0], "counts": 1000.0, "net": 900.0, "bins": 100,
        "outside": "", "blemish": "", "prototype": True, "best": "powerlaw+bbody", "best_value": 100.0, "best_one": 103.0,
        "best_values": {"tbabs.nH": 1e-4, "powerlaw.norm": 1.0, "bbody.kT": 0.5}, "best_at_limit": ["tbabs.nH"],
        "powerlaw": 110.0, "aic": 110.0, "learned": 99.0, "prior": 4.0, "effective": 4.5, "learned_aic": 108.0,
        "halves": [{"model": "powerlaw", "score": 120.0, "learned_score": 119.0}],
    }  # fmt: skip
    return {**made, **changes}


def test_summary_counts(modules):
    tables = modules["real_tables"]
    rows = [
        row(),
        row(learned=101.5, name="pn_a", camera="pn", learned_aic=111.0),
        row(learned=106.0, learned_aic=113.0),
    ]
    rows[2]["halves"] = [{"model": "bbody", "score": 120.0, "learned_score": 125.0}]
    found = tables.summary(rows)
    assert (found["n"], found["at_or_below"], found["within_2"], found["within_5"]) == (3, 1, 2, 2)
    assert (found["median"], found["worst"]) == (1.5, 6.0)
    assert (found["one_component"], found["powerlaw"], found["aic"], found["aic_2"]) == (2, 3, 1, 2)
    assert (found["half"], found["half_n"], found["half_median"]) == (2, 3, -1.0)


def test_spectra_listed_apart_are_in_no_summary(modules):
    tables = modules["real_tables"]
    rows = [row(), row(name="pn_circinus", camera="pn", outside="forest of lines", prototype=False, learned=1e4)]
    found = tables.summaries(rows)
    assert "pn" not in found
    assert all(some["worst"] == -1.0 for some in found.values())
    assert "pn_circinus" in tables.page(rows, {"starts": 16, "weights": None}).split("Listed apart")[1]


def test_parameters_at_a_limit_are_in_brackets(modules):
    assert modules["real_tables"].parameters_text(row()) == "(nH 0.0001), kT 0.5"


def test_tables_stand_between_their_markers(modules):
    between = modules["real_tables"].between
    text = (ROOT / "docs/real-spectra.md").read_text()
    assert "new words" in between(text, "real-spectra", "new words\n")
    assert between(between(text, "real-spectra", "a"), "real-spectra", "b") == between(text, "real-spectra", "b")
    with pytest.raises(ValueError, match="no markers"):
        between("nothing", "real-spectra", "a")


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_fits_are_kept_by_what_they_depend_on(modules, tmp_path):
    kept = modules["real_spectra"].Kept(tmp_path / "kept")
    kept.put("a", "key", {"statistic": 1.0})
    assert kept.get("a", "key") == {"statistic": 1.0}
    assert kept.get("a", "other") is None
    assert kept.get("b", "key") is None
    (tmp_path / "kept" / "a.json").write_text('{"key": "key", "resu')
    assert kept.get("a", "key") is None


def test_no_classical_fit_is_made_when_none_is_wanted(modules, panel, bins, tmp_path):
    case = panel.Case("binary_a", "Chandra", (0.5, 8.0), ROOT / "data" / "binary_a.pha")
    with pytest.raises(UserError, match="--classical-only"):
        modules["real_spectra"].Classics(tmp_path, frozen=True).whole(case, bins)


@pytest.mark.slow
def test_classical_fits_of_a_spectrum_and_its_half(modules, panel, bins, tmp_path):
    case = panel.Case("binary_a", "Chandra", (0.5, 8.0), ROOT / "data" / "binary_a.pha")
    classics = modules["real_spectra"].Classics(tmp_path, starts=4)
    whole, half = classics.whole(case, bins), classics.half(case, bins, 0)
    assert set(whole) == set(half) == {model.name for model in panel.PANEL}
    assert whole["powerlaw+bbody"]["statistic"] <= whole["powerlaw"]["statistic"] + 1e-3
    assert all(np.isfinite(found["score"]) for found in half.values())
    frozen = modules["real_spectra"].Classics(tmp_path, starts=4, frozen=True)
    assert frozen.whole(case, bins) == whole
    assert frozen.half(case, bins, 0) == half


def test_folder_without_spectra_is_refused(modules, tmp_path):
    with pytest.raises(UserError, match="holds no spectra"):
        modules["real_spectra"].main(["--classical-only", "--data", str(tmp_path)])


@pytest.mark.slow
def test_whole_script_on_two_real_spectra(modules, shared_data, tmp_path):
    write_weights(tmp_path / "toy.h5", weights())
    out = tmp_path / "out"
    words = ["--data", str(shared_data), "--out", str(out), "--only", "acis_sdssj1030", "xrt_pc_op313", "--starts", "2"]
    assert modules["real_spectra"].main([*words, "--weights", str(tmp_path / "toy.h5"), "--quick"]) == 0
    rows = json.loads((out / "real_spectra.json").read_text())["rows"]
    assert [r["counts"] for r in rows] == [132, 323]
    assert all(r["learned"] > 0 and 0 < r["effective"] <= 5 for r in rows)
    assert all(np.isfinite(r["halves"][0]["learned_score"]) for r in rows)
    assert "xrt_pc_op313" in (out / "real_spectra.md").read_text()
