"""Native components inside Sherpa: grids, values, folding, fitting, saving."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from sherpa.astro import hc
from sherpa.astro.ui.utils import Session
from sherpa.fit import Fit
from sherpa.models import basic
from sherpa.models.basic import PowLaw1D
from sherpa.optmethods import LevMar
from sherpa.stats import CStat
from sherpa.utils.err import ParameterErr

from deepspec.errors import UserError
from deepspec.models.base import Kind
from sherpa_plugin import models, register

EDGES = np.geomspace(0.3, 10.0, 201)
LOW, HIGH = EDGES[:-1], EDGES[1:]


def make(name, label="made", **values):
    model = getattr(models, name)(label)
    for key, value in values.items():
        setattr(model, key, value)
    return model


@pytest.fixture
def session(root):
    """A session of its own with a bundled observation loaded."""
    made = Session()
    made._add_model_types(basic)
    made.load_pha(1, str(root / "data" / "binary_a.pha"))
    made.notice(0.5, 7.0)
    made.set_stat("cstat")
    register(made)
    return made


@pytest.fixture
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.mark.parametrize("index", [-1.0, 0.7, 1.0, 2.3])
def test_power_law_is_sherpas(index):
    own = PowLaw1D("own")
    own.gamma, own.ampl = index, 3e-4
    np.testing.assert_allclose(make("dspowerlaw", PhoIndex=index, norm=3e-4)(LOW, HIGH), own(LOW, HIGH), rtol=1e-11)


@pytest.mark.parametrize("name", models.names())
def test_parameters_are_those_of_the_component(name):
    made = getattr(models, name)("x")
    described = list(made.component.parameters)
    if made.component.kind is Kind.ADDITIVE:
        described.append(made.component.norm)
    assert [p.name for p in made.pars] == [p.name for p in described]
    for ours, theirs in zip(described, made.pars, strict=True):
        assert (theirs.val, theirs.min, theirs.max, theirs.hard_min, theirs.hard_max, theirs.units) == (
            ours.default,
            ours.soft_min,
            ours.soft_max,
            ours.hard_min,
            ours.hard_max,
            ours.unit,
        )
        assert theirs.frozen == (ours.frozen or ours.switch)
        assert theirs.alwaysfrozen == ours.switch


@pytest.mark.parametrize("name", models.names())
def test_every_component_is_finite_from_a_first_bin_at_almost_zero(name):
    """Sherpa puts 1e-10 keV where a response begins at 0."""
    edges = np.concatenate([[1e-10], np.arange(0.005, 12.0, 0.005)])
    made = getattr(models, name)("x")
    try:
        value = made(edges[:-1], edges[1:])
    except UserError as missing:
        if "AtomDB" not in str(missing):
            raise
        pytest.skip(str(missing))
    assert value.shape == (len(edges) - 1,)
    assert value.dtype == np.float64
    assert (value >= 0).all()


@pytest.mark.parametrize("name", ["dspowerlaw", "dstbabs", "dsgaussian", "dsdiskbb"])
def test_gaps_in_the_grid_change_no_bin(name):
    use = np.ones(len(LOW), dtype=bool)
    use[[0, 40, 41, 42, 120, 199]] = False
    made = getattr(models, name)("x")
    np.testing.assert_allclose(made(LOW[use], HIGH[use]), made(LOW, HIGH)[use], rtol=1e-9)


@pytest.mark.parametrize("name", ["dspowerlaw", "dstbabs", "dsbbody"])
def test_wavelengths_are_the_energies_they_stand_for(name):
    made = getattr(models, name)("x")
    np.testing.assert_allclose(made(hc / HIGH, hc / LOW), made(LOW, HIGH), rtol=1e-9)


def test_regrid_agrees_with_the_grid_itself():
    made = make("dspowerlaw", PhoIndex=1.7)
    fine = np.geomspace(0.2, 12.0, 4001)
    np.testing.assert_allclose(made.regrid(fine[:-1], fine[1:])(LOW, HIGH), made(LOW, HIGH), rtol=1e-3)


def test_a_change_of_a_value_is_seen_through_the_cache():
    made = make("dstbabs", nH=0.1)
    first = made(LOW, HIGH).copy()
    made.nH = 0.2
    second = made(LOW, HIGH)
    np.testing.assert_allclose(second, first**2, rtol=1e-12)


def test_points_and_overlapping_bins_are_refused():
    made = make("dspowerlaw")
    with pytest.raises(UserError, match="points"):
        made(LOW)
    with pytest.raises(UserError, match="overlap"):
        made(LOW, HIGH + 0.1)


def test_a_value_that_is_not_finite_is_refused():
    class Broken(models.NativeModel):
        component = make("dspowerlaw").component

    class Infinite:
        kind, parameters, norm = Broken.component.kind, Broken.component.parameters, Broken.component.norm

        def evaluate(self, grid, PhoIndex):
            return torch.full((len(grid),), torch.nan, dtype=torch.float64) * PhoIndex

    Broken.component = Infinite()
    with pytest.raises(UserError, match=r"not finite at PhoIndex=1.*limits"):
        Broken("broken")(LOW, HIGH)


def test_limits_hold():
    with pytest.raises(ParameterErr):
        make("dstbabs").nH = -1.0


def test_fit_in_a_session_ends_where_sherpas_power_law_ends(session):
    found = []
    for source in ("dstbabs.gal * dspowerlaw.p1", "dstbabs.gal * powlaw1d.p2"):
        session.set_source(source)
        session.get_model_component("gal").nH = 0.1
        session.guess()
        session.fit()
        found.append(session.get_fit_results())
    np.testing.assert_allclose(found[0].parvals, found[1].parvals, rtol=2e-3)
    assert found[0].statval == pytest.approx(found[1].statval, abs=1e-3)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # Sherpa's own: the first channel begins at 0 keV
def test_statistic_in_energy_and_wavelength_analysis(session):
    session.set_source("dstbabs.gal * dspowerlaw.p1")
    session.get_model_component("gal").nH = 0.1
    session.guess()
    energy = session.calc_stat()
    session.set_analysis("wave")
    assert session.calc_stat() == pytest.approx(energy, rel=1e-9)


def test_guess_gives_the_counts_of_the_data(session):
    session.set_source("dspowerlaw.p1")
    session.guess()
    predicted, observed = session.get_model_plot(recalc=True), session.get_data()
    assert observed.eval_model_to_fit(session.get_model()).sum() == pytest.approx(observed.get_dep(True).sum(), rel=0.3)
    assert np.isfinite(predicted.y).all()


def test_session_is_saved_and_restored(session, tmp_path):
    session.set_source("dstbabs.gal * dspowerlaw.p1")
    session.get_model_component("p1").PhoIndex = 1.9
    session.get_model_component("gal").nH = 0.3
    session.save(str(tmp_path / "saved.sherpa"))
    other = Session()
    other.restore(str(tmp_path / "saved.sherpa"))
    assert other.calc_stat() == pytest.approx(session.calc_stat(), rel=1e-12)
    assert other.get_model_component("p1").PhoIndex.val == 1.9


def test_a_model_survives_pickling():
    made = make("dstbabs", "gal", nH=0.37)
    again = pickle.loads(pickle.dumps(made))
    assert again.name == "gal"
    np.testing.assert_array_equal(again(LOW, HIGH), made(LOW, HIGH))


def test_register_can_be_repeated_and_overwrites_nothing(session):
    assert register(session) == models.names()
    session.clean()
    assert "dstbabs" in register(session)
    session.create_model_component("dstbabs", "again")

    class DSPowerLaw(PowLaw1D):
        pass

    other = Session()
    other.add_model(DSPowerLaw)
    with pytest.raises(UserError, match="dspowerlaw"):
        register(other)
    assert "dstbabs" not in other.list_models()


def test_unknown_names_and_convolutions_are_no_attributes():
    for name in ("dsnothing", "powerlaw", "dscflux"):
        assert not hasattr(models, name)


def test_threads_are_given_up_after_a_fork(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(models, "_process", os.getpid() + 1)
    made = make("dspowerlaw")
    made(LOW, HIGH)
    made.PhoIndex = 2.0
    made(LOW, HIGH)
    assert asked == [1]


def test_object_api_fits_without_a_session(session):
    data = session.get_data()
    session.set_source("dstbabs.gal * dspowerlaw.p1")
    session.guess()
    result = Fit(data, session.get_model(), CStat(), LevMar()).fit()
    assert result.succeeded
