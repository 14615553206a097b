"""Laws that every component obeys; a new line in COMPONENTS is tested by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Component, Grid, Kind, row_derivatives

ALL = list(COMPONENTS)
# Ranges for drawing: what a fit meets, where the soft limits reach beyond anything a CCD sees.
USUAL = {
    "nH": (0.0, 30.0),
    "LineE": (0.1, 12.0),
    "Strength": (0.0, 2.0),
    "BreakE": (0.1, 30.0),
    "BreakE1": (0.1, 5.0),
    "BreakE2": (5.1, 30.0),
    "Redshift": (-0.05, 5.0),
    "eMin": (0.2, 3.0),
    "eMax": (3.5, 15.0),
    "Emin": (0.2, 3.0),
    "Emax": (3.5, 15.0),
    "lg10Flux": (-15.0, -9.0),
    "Flux": (1e-6, 10.0),
    "Tin": (0.05, 20.0),
    "kT": (0.06, 40.0),
    "cutoffE": (0.1, 50.0),
    "foldE": (0.5, 100.0),
    "factor": (0.1, 10.0),
    "LowECut": (0.0, 20.0),
    "nHden": (1e-3, 1e3),
}
# Components whose bin rule is an integral: how well two halves of a bin add up to it.
SPLITTING = {
    "powerlaw": 1e-11,
    "zpowerlw": 1e-11,
    "pegpwrlw": 1e-11,
    "bknpower": 1e-11,
    "bkn2pow": 1e-11,
    "gaussian": 1e-11,
    "zgauss": 1e-11,
    "cutoffpl": 1e-9,
    "zcutoffpl": 1e-9,
    "diskbb": 1e-5,
}
MAY_EXCEED_ONE = {"constant"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str) -> Component:
    """The component, or a skip that says which data it would need."""
    try:
        component = COMPONENTS[name]()
        if component.kind is not Kind.CONVOLUTION:
            component.evaluate(Grid([1.0, 2.0]), **defaults(component))
    except UserError as missing:
        pytest.skip(str(missing))
    return component


def defaults(component: Component) -> dict[str, torch.Tensor]:
    return {p.name: torch.tensor([p.default], dtype=torch.float64) for p in component.parameters}


def draw(component: Component, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
    """`count` parameter sets within the soft limits; switches keep their default."""
    values = {}
    for p in component.parameters:
        low, high = USUAL.get(p.name, (p.soft_min, p.soft_max))
        low, high = max(low, p.soft_min), min(high, p.soft_max)
        if p.switch:
            found = np.full(count, p.default)
        elif low > 0 and high / low > 20:
            found = np.exp(rng.uniform(np.log(low), np.log(high), count))
        else:
            found = rng.uniform(low, high, count)
        values[p.name] = torch.as_tensor(found).reshape(count, 1)
    return values


def values_of(component: Component, grid: Grid, values) -> torch.Tensor:
    """Flux or factor per bin; a convolution acts on a power law, which has flux everywhere."""
    if component.kind is Kind.CONVOLUTION:
        index = torch.tensor([1.7], dtype=torch.float64)
        return component.apply(grid, lambda other: COMPONENTS["powerlaw"]().evaluate(other, PhoIndex=index), **values)
    return component.evaluate(grid, **values)


def derivatives_of(component: Component, grid: Grid, values, wanted):
    if component.kind is Kind.CONVOLUTION:
        return row_derivatives(lambda **v: values_of(component, grid, v), values, list(wanted))
    return component.derivatives(grid, values, list(wanted))


def fitted(component: Component) -> list[str]:
    return [p.name for p in component.parameters if not p.switch]


def ccd_grid() -> Grid:
    """Like a CCD response: 10 eV bins at low energies, wider above."""
    return Grid(np.concatenate([np.arange(0.31, 2.0, 0.02), np.arange(2.01, 10.0, 0.1)]))


@pytest.mark.parametrize("name", ALL)
class TestLaws:
    @settings(max_examples=8)
    @given(seed=st.integers(0, 2**31))
    def test_values_are_finite_and_have_the_right_sign(self, name, seed):
        component = make(name)
        value = values_of(component, ccd_grid(), draw(component, np.random.default_rng(seed), 4))
        assert value.dtype == torch.float64
        assert value.shape[-1] == len(ccd_grid())
        assert torch.isfinite(value).all()
        assert (value >= 0.0).all()
        if component.kind is Kind.MULTIPLICATIVE and name not in MAY_EXCEED_ONE:
            assert (value <= 1.0 + 1e-12).all()

    @settings(max_examples=4)
    @given(seed=st.integers(0, 2**31))
    def test_a_batch_equals_a_loop(self, name, seed):
        component, grid = make(name), ccd_grid()
        values = draw(component, np.random.default_rng(seed), 5)
        together = values_of(component, grid, values).expand(5, -1)
        alone = torch.stack(
            [values_of(component, Grid(grid.edges), {k: v[i] for k, v in values.items()}) for i in range(5)]
        )
        torch.testing.assert_close(together, alone, rtol=2e-7, atol=1e-13 * float(alone.max()))

    def test_any_leading_axes(self, name):
        component, grid = make(name), ccd_grid()
        values = draw(component, np.random.default_rng(1), 6)
        flat = values_of(component, grid, values).expand(6, -1)
        stacked = values_of(component, grid, {k: v.reshape(2, 3, 1) for k, v in values.items()}).expand(2, 3, -1)
        torch.testing.assert_close(stacked.reshape(6, -1), flat, rtol=1e-9, atol=1e-13 * float(flat.max()))

    def test_a_batch_of_grids(self, name):
        component = make(name)
        edges = ccd_grid().edges * torch.tensor([[1.0], [1.3], [2.0]], dtype=torch.float64)
        values = draw(component, np.random.default_rng(2), 3)
        together = values_of(component, Grid(edges), values).expand(3, -1)
        for i in range(3):
            alone = values_of(component, Grid(edges[i]), {k: v[i] for k, v in values.items()})
            torch.testing.assert_close(together[i], alone, rtol=2e-7, atol=1e-13 * float(alone.max()))

    @settings(max_examples=4)
    @given(seed=st.integers(0, 2**31))
    def test_derivatives_are_those_of_the_value(self, name, seed):
        """The closed forms, derivatives by row and the gradient of a sum agree, for all parameters at once and for each alone."""
        component, grid = make(name), ccd_grid()
        values, wanted = draw(component, np.random.default_rng(seed), 3), fitted(component)
        value, slopes = derivatives_of(component, grid, values, wanted)
        assert slopes.shape == (len(wanted), 3, len(grid))
        torch.testing.assert_close(value.expand(3, -1), values_of(component, grid, values).expand(3, -1))
        again = row_derivatives(lambda **v: values_of(component, grid, v), values, wanted)[1]
        weights = torch.linspace(0.5, 1.5, len(grid), dtype=torch.float64)
        leaves = {k: v.clone().requires_grad_(k in wanted) for k, v in values.items()}
        (values_of(component, Grid(grid.edges), leaves).expand(3, -1) * weights).sum().backward()
        for i, key in enumerate(wanted):
            scale = float(slopes[i].abs().max()) + 1e-4 * float(value.max())
            torch.testing.assert_close(slopes[i], again[i], rtol=1e-6, atol=1e-9 * scale)
            torch.testing.assert_close(
                leaves[key].grad[:, 0], (slopes[i] * weights).sum(-1), rtol=1e-6, atol=1e-8 * scale
            )
            single = derivatives_of(component, grid, values, [key])[1][0]
            torch.testing.assert_close(single, slopes[i], rtol=1e-9, atol=1e-12 * scale)

    @settings(max_examples=4)
    @given(seed=st.integers(0, 2**31))
    def test_derivatives_against_differences(self, name, seed):
        """Central differences; one bin in twenty may hold an edge, a break or a piece boundary that moves."""
        component, grid = make(name), ccd_grid()
        values = draw(component, np.random.default_rng(seed), 3)
        for p in component.parameters:
            if p.switch:
                continue
            step = 1e-6 * values[p.name].abs().clamp(min=1e-2)
            up = values_of(component, grid, {**values, p.name: values[p.name] + step})
            down = values_of(component, grid, {**values, p.name: values[p.name] - step})
            numeric = ((up - down) / (2 * step)).expand(3, -1)
            exact = derivatives_of(component, grid, values, [p.name])[1][0]
            noise = 1e-10 * (up.abs().amax(-1, keepdim=True) / step) + 1e-4 * numeric.abs().amax(-1, keepdim=True)
            off = (exact - numeric).abs() > noise + 1e-4 * numeric.abs()
            assert off.double().mean() < 0.05, (p.name, values)

    def test_finite_at_every_limit(self, name):
        """Soft limits, one parameter at a time: value and derivatives stay finite."""
        component = make(name)
        grid = Grid(np.concatenate([[1e-10], np.geomspace(0.01, 110.0, 60)]))
        for p in component.parameters:
            for limit in (p.soft_min, p.soft_max):
                if p.switch or p.name in ("eMin", "eMax", "Emin", "Emax", "lg10Flux"):
                    continue
                values = {**defaults(component), p.name: torch.tensor([limit], dtype=torch.float64)}
                value, slopes = derivatives_of(component, grid, values, fitted(component))
                assert torch.isfinite(value).all(), (p.name, limit)
                assert torch.isfinite(slopes).all(), (p.name, limit)
                assert (value >= 0.0).all()

    def test_parameters_are_in_order(self, name):
        component = make(name)
        names = [p.name for p in component.parameters]
        assert len(set(names)) == len(names)
        for p in component.parameters:
            assert p.hard_min <= p.soft_min <= p.default <= p.soft_max <= p.hard_max
        assert component.name == name
        assert component.source
        assert type(component).__doc__


@pytest.mark.parametrize("name", [name for name in ALL if COMPONENTS[name].kind is not Kind.CONVOLUTION])
def test_second_derivatives_at_the_defaults(name):
    """Exact Hessians differentiate `evaluate` twice; defaults are special places (PhoIndex 1, Redshift 0)."""
    component, grid = make(name), ccd_grid()
    values = {key: value.reshape(1, 1) for key, value in defaults(component).items()}
    wanted = [key for key in fitted(component) if key not in component.kinks]
    weights = torch.linspace(0.5, 1.5, len(grid), dtype=torch.float64)
    leaves = {key: values[key].clone().requires_grad_() for key in wanted}
    total = (component.evaluate(grid, **{**values, **leaves}) * weights).sum()
    slopes = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    for key in wanted:
        step = 1e-4 * values[key].abs().clamp(min=0.1)
        up = component.derivatives(grid, {**values, key: values[key] + step}, wanted)[1]
        down = component.derivatives(grid, {**values, key: values[key] - step}, wanted)[1]
        numeric = (((up - down) / (2 * step))[:, 0] * weights).sum(-1)
        for slope, expected in zip(slopes, numeric, strict=True):
            found = torch.zeros(1, 1)
            if slope.requires_grad:
                (found,) = torch.autograd.grad(slope.sum(), leaves[key], retain_graph=True, allow_unused=True)
                found = torch.zeros(1, 1) if found is None else found
            scale = float(numeric.abs().max()) + 1e-4 * float(total.detach().abs())
            assert abs(float(found) - float(expected)) < 1e-4 * scale, key


@pytest.mark.parametrize("name", SPLITTING)
def test_splitting_bins_keeps_the_photons(name):
    component, grid = make(name), ccd_grid()
    fine = torch.sort(torch.cat([grid.edges, grid.middle]))[0]
    values = draw(component, np.random.default_rng(3), 20)
    coarse = values_of(component, grid, values)
    split = values_of(component, Grid(fine), values).reshape(20, -1, 2).sum(-1)
    torch.testing.assert_close(split, coarse, rtol=SPLITTING[name], atol=1e-13 * float(coarse.max()))


@pytest.mark.parametrize("name", [name for name in ALL if COMPONENTS[name].kind is not Kind.CONVOLUTION])
def test_nothing_is_differentiated_when_nothing_is_wanted(name):
    component, grid = make(name), ccd_grid()
    value, slopes = component.derivatives(grid, defaults(component), [])
    assert slopes.shape == (0, *value.shape)
