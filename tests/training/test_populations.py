"""Laws that every class of sources keeps, and the parts that spectra are made of against the native components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.grids import BAND, CENTRES, COUNT, EDGES, ENERGY_WEIGHTS
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.models.plasma import Mekal, Vmekal
from deepspec.training.plasma_bank import METALS, PlasmaBank
from deepspec.training.populations import CLASS_NAMES, FLOOR, POPULATIONS, Population, class_shares, draw, normalised
from deepspec.training.populations.atomic import FLUORESCENT, LOG_XI
from deepspec.training.populations.bench import EXTENDED, HIGHEST_REDSHIFT, abundance, bench, hats
from deepspec.training.populations.page import with_classes
from deepspec.training.populations.priors import LogUniform, Uniform, chance, normal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "populations.md"


def one(value: float, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(values: torch.Tensor, prior) -> bool:
    """In the prior's limits, as float32 rounds them."""
    low, high = torch.tensor([prior.low, prior.high], dtype=torch.float32)
    return bool(((values >= low) & (values <= high)).all())


@pytest.fixture(scope="module")
def each() -> dict:
    """600 sources of every class."""
    return {name: draw(600, seeded(7), shares={name: 1.0}) for name in CLASS_NAMES}


@pytest.mark.parametrize("name", CLASS_NAMES)
class TestEveryClass:
    def test_is_finite_and_positive(self, each, name):
        shape = each[name].shape
        assert shape.shape == (600, COUNT)
        assert shape.dtype == torch.float32
        assert bool(torch.isfinite(shape).all())
        assert float(shape.min()) > 0

    def test_has_unit_energy_flux(self, each, name):
        flux = each[name].shape.double() @ torch.as_tensor(ENERGY_WEIGHTS)
        torch.testing.assert_close(flux, torch.ones_like(flux), rtol=1e-4, atol=0)

    def test_has_learnable_logarithms(self, each, name):
        shape = each[name].shape
        inside = torch.as_tensor((EDGES[:-1] < BAND[1]) & (EDGES[1:] > BAND[0]))
        assert float((shape.amin(-1) / shape[:, inside].amax(-1)).min()) >= 0.99 * FLOOR
        assert float((shape.amax(-1) / shape[:, inside].amax(-1)).max()) < 1e5

    def test_keeps_its_documented_ranges(self, each, name):
        parameters = each[name].parameters
        assert list(parameters) == [name]
        assert set(parameters[name]) == set(POPULATIONS[name].priors)
        for key, prior in POPULATIONS[name].priors.items():
            values = parameters[name][key]
            assert values.shape == ((600,) if prior.size == 1 else (600, prior.size))
            assert within(values, prior)
            assert float(values.std()) > 0

    def test_is_reproducible_by_seed(self, each, name):
        again = draw(600, seeded(7), shares={name: 1.0})
        other = draw(600, seeded(8), shares={name: 1.0})
        assert torch.equal(again.shape, each[name].shape)
        assert not torch.isclose(other.shape, each[name].shape, rtol=1e-3).all(-1).any()

    def test_draws_no_source_twice(self, each, name):
        assert len(torch.unique(each[name].shape, dim=0)) == 600

    def test_does_not_depend_on_the_scale_of_its_own_normalisation(self, each, name):
        torch.testing.assert_close(normalised(1e3 * each[name].shape), normalised(each[name].shape.clone()))

    def test_is_documented(self, name):
        kind = POPULATIONS[name]
        assert kind.__doc__
        assert kind.why
        assert f"### {name}\n" in PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_the_code_does():
    page = PAGE.read_text(encoding="utf-8")
    assert with_classes(page) == page, "run python -m deepspec.training.populations.page docs/populations.md"


def test_default_shares_are_a_whole():
    assert sum(kind.share for kind in POPULATIONS.values()) == pytest.approx(1.0)
    assert class_shares().tolist() == pytest.approx([kind.share for kind in POPULATIONS.values()])


def test_labels_follow_the_shares():
    label = draw(4000, seeded(1), shares={"star": 3.0, "plain": 1.0}).label
    counts = torch.bincount(label, minlength=len(CLASS_NAMES))
    star, plain = counts[CLASS_NAMES.index("star")], counts[CLASS_NAMES.index("plain")]
    assert int(star + plain) == 4000
    assert abs(int(star) - 3000) < 5 * np.sqrt(4000 * 0.75 * 0.25)


def test_parameters_are_in_the_order_of_the_sources():
    """A hotter black body alone makes a harder spectrum; classes are mixed in the batch."""
    sources = draw(2000, seeded(2))
    law = sources.parameters["plain"]
    rows = sources.shape[sources.label == CLASS_NAMES.index("plain")]
    pure = (law["has_cut"] + law["has_second"] + law["has_absorber"]) == 0
    low, high = np.searchsorted(CENTRES, 1.0), np.searchsorted(CENTRES, 2.0)
    measured = torch.log(rows[:, high] / rows[:, low]) / np.log(CENTRES[high] / CENTRES[low])
    assert int(pure.sum()) > 20
    torch.testing.assert_close(1.0 - measured[pure], law["index"][pure], rtol=1e-2, atol=1e-2)


def test_classes_differ(each):
    """Of the nearest other source to one of a class, many more are of that class than one in twelve."""
    logarithm = torch.cat([torch.log(each[name].shape[:, ::6]) for name in CLASS_NAMES])
    apart = torch.cdist(logarithm, logarithm).fill_diagonal_(float("inf"))
    of_the_same = (apart.argmin(-1) // 600 == torch.arange(len(logarithm)) // 600).float().reshape(-1, 600).mean(-1)
    assert float(of_the_same.min()) > 2 / len(CLASS_NAMES), dict(zip(CLASS_NAMES, of_the_same.tolist(), strict=True))


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ({"stars": 1.0}, "stars"),
        ({"star": -1.0}, "-1"),
        ({"star": float("nan")}, "nan"),
        ({"star": 0.0}, "no class"),
        ({}, "no class"),
    ],
)
def test_impossible_shares_are_refused(shares, word):
    with pytest.raises(UserError, match=word):
        draw(3, seeded(0), shares=shares)


def test_a_new_class_is_a_block_and_a_line(monkeypatch):
    class Flat(Population):
        """A law of index 2."""

        name, share, why = "flat", 0.0, "nothing"
        priors = {"z": LogUniform(0.1, 1.0)}

        def spectrum(self, on, **parameters):
            return torch.ones((5, on.count))

    spectrum, parameters = Flat().draw(5, seeded(0))
    assert spectrum.shape == (5, COUNT)
    assert parameters["z"].shape == (5,)


# ---- the parts against the native components


@pytest.fixture(scope="module")
def distant():
    on = bench(EXTENDED)
    return on, Grid(torch.as_tensor(on.edges_numpy))


def difference(mine, native) -> float:
    """Largest relative difference where the native flux matters, both of unit sum."""
    mine, native = mine.reshape(-1).double(), native.reshape(-1)
    mine, native = mine / mine.sum(), native / native.sum()
    matters = native > 1e-6 * native.max()
    return float((mine / native - 1).abs()[matters].max())


FIXED = {"nH": one(1.0, torch.float64), "Redshift": one(0.0, torch.float64), "switch": one(1.0, torch.float64)}


@pytest.mark.parametrize("kT", [0.085, 0.3, 1.0, 4.0, 12.0, 60.0])
def test_bank_equals_vmekal(distant, kT):
    on, grid = distant
    relative = dict(zip(METALS[:-1], np.linspace(0.2, 3.0, len(METALS) - 1), strict=True))
    values = {"He": 1.0, "Na": 0.7, "Al": 0.7, **relative}
    native = Vmekal("angr").evaluate(
        grid, kT=one(kT, torch.float64), **FIXED, **{k: one(v, torch.float64) for k, v in values.items()}
    )
    metals = torch.tensor([[*relative.values(), 0.7]], dtype=torch.float32)
    mine = on.plasma_bank(on.plasma_bank.single(one(kT)), metals)
    assert difference(mine, native) < 0.01
    assert float(mine.sum()) * PlasmaBank.scale == pytest.approx(float(native.sum()), rel=1e-4)


@pytest.mark.parametrize("kT", [0.1, 0.7, 6.0])
def test_solar_ratios_equal_mekal(distant, kT):
    on, grid = distant
    native = Mekal("angr").evaluate(grid, kT=one(kT, torch.float64), Abundanc=one(0.4, torch.float64), **FIXED)
    rows = on.plasma_bank.single(one(kT))
    assert difference(on.solar_plasma(rows, one(0.4)), native) < 0.01
    torch.testing.assert_close(on.solar_plasma(rows, one(0.4)), on.plasma(rows, abundance(one(0.4))), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["spread", "falling"])
def test_distributions_of_temperature_are_whole(distant, name):
    bank = distant[0].plasma_bank
    kT, other = torch.tensor([0.3, 1.0, 5.0]), torch.tensor([0.3, 0.6, 0.6])
    rows = getattr(bank, name)(kT, other)
    torch.testing.assert_close(rows.sum(-1), torch.ones(3))
    place = (torch.log(kT) - bank.first) / bank.step
    mean = rows @ torch.arange(bank.rows, dtype=torch.float32)
    assert bool((rows >= 0).all())
    assert bool((torch.diff(mean) > 0).all())
    if name == "spread":
        torch.testing.assert_close(mean, place, atol=0.1, rtol=0)
    else:
        assert bool((rows * (torch.arange(bank.rows) > place[:, None] + 1) == 0).all())


@pytest.mark.parametrize("value", [0.03, 0.1, 0.6, 2.4])
def test_thermal_continua_equal_the_native_ones(distant, value):
    on, grid = distant
    for name, mine, key in (("bbody", on.body, "kT"), ("diskbb", on.disk, "Tin")):
        native = COMPONENTS[name]().evaluate(grid, **{key: one(value, torch.float64)})
        assert difference(mine(one(value)), native) < 0.01


def test_laws_equal_the_native_ones(distant):
    on, grid = distant
    native = COMPONENTS["cutoffpl"]().evaluate(grid, PhoIndex=one(1.7, torch.float64), HighECut=one(9.0, torch.float64))
    assert difference(on.law(one(1.7), one(9.0)), native) < 1e-3
    native = COMPONENTS["powerlaw"]().evaluate(grid, PhoIndex=one(-1.2, torch.float64))
    assert difference(on.law(one(-1.2)), native) < 1e-3


def test_absorption_equals_the_native_one(distant):
    """Away from the edges, where a bin's mean and XSPEC's mean of two ends differ."""
    on, grid = distant
    native = COMPONENTS["ztbabs"]().evaluate(grid, nH=one(1.0, torch.float64), Redshift=one(0.0, torch.float64))
    apart = (on.transmission(one(1.0)).double() - native).abs().reshape(-1)
    assert float(apart.quantile(0.98)) < 1e-3
    assert float(apart.max()) < 0.03
    both = on.law(one(2.0), column=one(1.0))
    torch.testing.assert_close(both, on.law(one(2.0)) * on.transmission(one(1.0)), rtol=1e-4, atol=1e-30)
    half = on.covered(one(1.0), one(0.5))
    torch.testing.assert_close(half, 0.5 + 0.5 * on.transmission(one(1.0)))


@pytest.mark.parametrize("sigma", [0.001, 0.05, 0.6])
def test_a_line_holds_its_photons(distant, sigma):
    on, _ = distant
    spectrum = on.add_line(torch.zeros((1, EXTENDED)), one(3.0), 6.4, one(sigma))
    photons = spectrum[0] * float(np.log(EDGES[1] / EDGES[0]))
    assert float(photons.sum()) == pytest.approx(3.0, rel=1e-4)
    assert float((photons * on.energy).sum() / photons.sum()) == pytest.approx(6.4, abs=0.03)


def test_fluxes_are_those_of_the_grid():
    on = bench(COUNT)
    law = on.unit(on.law(one(1.4)))
    step = float(np.log(EDGES[1] / EDGES[0]))
    assert float(on.flux(law)) == pytest.approx(1.0, rel=1e-5)
    # erg and keV differ by one factor
    factor = 1.602176634e-9 / 1e-12
    assert float((law * step).double() @ torch.as_tensor(ENERGY_WEIGHTS)) == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize("redshift", [0.0, 0.0123, 0.5, 2.0, HIGHEST_REDSHIFT])
def test_redshift_moves_a_line(distant, redshift):
    on, _ = distant
    rest = on.add_line(torch.zeros((1, EXTENDED)), one(1.0), 6.7, one(0.05))
    seen = on.redshifted(rest, one(redshift))[0]
    assert seen.shape == (COUNT,)
    centre = float((seen * torch.as_tensor(CENTRES)).sum() / seen.sum())
    assert centre == pytest.approx(6.7 / (1 + redshift), rel=2e-3)
    torch.testing.assert_close(seen.sum(), rest.sum(), rtol=1e-4, atol=0)


def test_redshift_of_a_law_is_a_factor(distant):
    on, _ = distant
    seen = on.redshifted(on.law(one(1.8)), one(1.3))
    torch.testing.assert_close(seen, bench(COUNT).law(one(1.8)) * 2.3**-0.8, rtol=1e-4, atol=0)


def test_reflection_is_hard_and_smoother_when_blurred(distant):
    on, _ = distant
    sharp, blurred = on.reflected(one(1.0), one(0.0))[0], on.reflected(one(1.0), one(2.0))[0]
    assert 0 < float(sharp.min())
    assert float(sharp.max()) < 1
    place = {energy: int(np.searchsorted(on.edges_numpy, energy)) for energy in (1.0, 7.0, 7.3, 20.0)}
    assert float(sharp[place[20.0]]) > 10 * float(sharp[place[1.0]])
    drop = [float(rows[place[7.0]] / rows[place[7.3]]) for rows in (sharp, blurred)]
    assert drop[0] > 1.2 > drop[1], "the iron edge is there, and blurred away"
    ionised = on.reflected(one(0.01), one(0.0))[0]
    assert float(ionised[place[1.0]]) > float(sharp[place[1.0]])


def test_lines_are_tied(distant):
    """One ionisation parameter decides all photo-ionised lines; cold ones are in fixed ratios."""
    on, _ = distant
    oxygen, iron = (int(np.searchsorted(on.edges_numpy, energy)) - 1 for energy in (0.561, 6.7))
    low, high = on.photoionised(torch.tensor([1.0, 3.3]))
    assert float(low[oxygen] / low[iron].clamp(min=1e-30)) > 100 * float(high[oxygen] / high[iron])
    total = sum(strength for _, strength in FLUORESCENT[0])
    light = sum(strength for _, strength in FLUORESCENT[1])
    step = float(np.log(EDGES[1] / EDGES[0]))
    photons = on.fluorescent(torch.tensor([0.0, 2.0])).sum(-1) * step
    torch.testing.assert_close(photons, torch.tensor([total, total + 2 * light]), rtol=1e-3, atol=0)


def test_warm_gas_absorbs_less_the_more_it_is_ionised(distant):
    on, _ = distant
    place = int(np.searchsorted(on.edges_numpy, 0.45))
    through = on.warm(one(1.0).expand(3), torch.tensor([0.3, 1.5, float(LOG_XI[-1])]))[:, place]
    assert bool((torch.diff(through) > 0).all())
    assert float(through[0]) < 0.9
    assert float(through[2]) > 0.99
    assert bool((on.warm(one(0.0), one(1.0)) == 1).all())


# ---- priors


@pytest.mark.parametrize(
    ("prior", "median"),
    [
        (Uniform(-1.0, 3.0), 1.0),
        (LogUniform(0.01, 1.0), 0.1),
        (normal(2.0, 0.5, 1.0, 3.0), 2.0),
        (normal(0.0, 1.0, 0.0, 9.0), 0.674),
    ],
)
def test_priors_have_their_median_and_limits(prior, median):
    values = prior.values(torch.rand(20000, generator=seeded(3)))
    assert float(values.median()) == pytest.approx(median, abs=0.03)
    assert within(values, prior)
    extreme = prior.values(torch.tensor([0.0, 1.0 - 2.0**-24]))
    assert bool(torch.isfinite(extreme).all())
    assert within(extreme, prior)
    assert float(extreme[0]) <= float(extreme[1])


def test_a_chance_is_a_share():
    values = chance(0.3).values(torch.rand(20000, generator=seeded(4)))
    assert set(values.tolist()) == {0.0, 1.0}
    assert float(values.mean()) == pytest.approx(0.3, abs=0.02)


def test_hats_interpolate():
    weights = hats(torch.tensor([-2.0, 0.0, 1.25, 9.0]), 4)
    expected = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(weights, expected)
