"""The figure by which decoders are compared: against the definition, an independent minimiser and what theory says of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from deepspec.learned.grids import CENTRES
from deepspec.training.acceptance import NH_PRIOR, View, by_class, excess


class LogLinear(nn.Module):
    """ln dN/dlnE = a power law whose index, curvature and three broad bumps move linearly with five latents."""

    latent = 5

    def __init__(self):
        super().__init__()
        x = torch.log(torch.as_tensor(CENTRES))
        bumps = [0.5 * torch.exp(-0.5 * ((x - c) / 0.25) ** 2) for c in (-0.5, 0.4, 1.3)]
        self.register_buffer("rows", torch.stack([0.6 * x, 0.2 * x**2, *bumps]).float())
        self.register_buffer("mean", (-0.8 * x).float())

    def table(self) -> None:
        return None

    def log_density(self, z: Tensor, table: None = None) -> Tensor:
        return self.mean + z @ self.rows

    def forward(self, z: Tensor, table: None = None) -> Tensor:
        return torch.exp(self.log_density(z))


@pytest.fixture(scope="module")
def view() -> View:
    """A camera of 60 bins: Gaussian redistribution of 6 % on an area that falls at both ends."""
    energy = np.asarray(CENTRES)
    edges = np.geomspace(0.3, 10.0, 61)
    middle = np.sqrt(edges[1:] * edges[:-1])
    spread = np.exp(-0.5 * (np.log(energy[:, None] / middle) / 0.06) ** 2)
    area = 1000.0 * np.exp(-0.5 * (np.log(energy / 1.4) / 1.0) ** 2)
    return View.of(area[:, None] * spread / spread.sum(1, keepdims=True), 2.0 * energy**-2.6)


@pytest.fixture(scope="module")
def inside(view) -> tuple[LogLinear, Tensor, Tensor, Tensor]:
    """Sources that the decoder itself makes, behind some nH."""
    generator = torch.Generator().manual_seed(3)
    decoder = LogLinear()
    z = torch.randn((40, 5), generator=generator).double()
    log_nH = -1.0 + 0.4 * torch.randn(40, generator=generator).double()
    return decoder, z, decoder.double()(z), log_nH


def outside(shapes: Tensor) -> Tensor:
    """The same with an emission line that no template holds."""
    line = np.exp(-0.5 * (np.log(CENTRES / 2.0) / 0.02) ** 2)
    return shapes * (1.0 + 1.5 * torch.as_tensor(line))


def cash_above_truth(decoder, view, shape, log_nH, z, counts) -> float:
    """C-stat of the fitted over the true model where the data are the expected counts; the norm fits the total."""
    truth = view.rates(shape, log_nH).numpy()
    fitted = view.rates(decoder(z), log_nH).numpy()
    truth, fitted = counts * truth / truth.sum(), counts * fitted / fitted.sum()
    return float(2.0 * np.sum(fitted - truth + truth * np.log(truth / fitted)))


def test_a_decoder_that_holds_the_sources_is_let_down_by_its_prior_alone(inside, view):
    decoder, z, shapes, log_nH = inside
    found = excess(decoder, shapes, log_nH, view)
    gained = z.square().sum(-1) - found.z.square().sum(-1)
    assert (found.value <= gained + 1e-3).all(), "the MAP is worse than the truth"
    assert (found.value > -1e-9).all()
    assert found.value[2].median() < found.value[0].median() < 1.0
    free = excess(decoder, shapes, log_nH, view, counts=(1e5,), prior=1e-6)
    assert free.value.max() < 1e-3
    torch.testing.assert_close(free.z[0], z, atol=0.02, rtol=0)


def test_the_value_is_the_cash_statistic_at_the_latents_returned(inside, view):
    decoder, _, shapes, log_nH = inside
    shapes = outside(shapes)
    found = excess(decoder, shapes[:6], log_nH[:6], view)
    for level, counts in enumerate(found.counts):
        for i in range(6):
            by_hand = cash_above_truth(decoder, view, shapes[i], log_nH[i], found.z[level, i], counts)
            assert float(found.value[level, i]) == pytest.approx(by_hand, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("counts", [1e3, 1e5])
def test_an_independent_minimiser_finds_nothing_lower(inside, view, counts):
    decoder, _, shapes, log_nH = inside
    shapes = outside(shapes)[:3]
    found = excess(decoder, shapes, log_nH[:3], view, counts=(counts,))
    for i in range(3):

        def objective(z, i=i):
            z = torch.as_tensor(z)
            return cash_above_truth(decoder, view, shapes[i], log_nH[i], z, counts) + float(z.square().sum())

        ours = float(found.value[0, i] + found.z[0, i].square().sum())
        theirs = minimize(objective, np.zeros(5), method="Powell", options={"xtol": 1e-6, "ftol": 1e-10}).fun
        assert ours <= theirs + 0.01


def test_a_free_nH_can_only_help_but_for_its_prior(inside, view):
    decoder, _, shapes, log_nH = inside
    shapes = outside(shapes)
    held, fitted = (excess(decoder, shapes, log_nH, view, counts=(1e4,), fit_nH=fit) for fit in (False, True))

    def objective(found):
        return (found.value + found.z.square().sum(-1) + ((found.log_nH - NH_PRIOR[0]) / NH_PRIOR[1]).square()).squeeze(
            0
        )

    assert (objective(fitted) <= objective(held) + 0.01).all()
    assert (fitted.log_nH - log_nH).abs().max() > 1e-3
    torch.testing.assert_close(held.log_nH[0], log_nH)


def test_the_same_seed_gives_the_same_figures_and_the_decoder_is_left_alone(inside, view):
    _, _, shapes, log_nH = inside
    decoder = LogLinear()
    first, second = (excess(decoder, shapes[:5], log_nH[:5], view, seed=4).value for _ in range(2))
    assert torch.equal(first, second)
    assert decoder.rows.dtype == torch.float32


def test_levels_must_rise(inside, view):
    decoder, _, shapes, log_nH = inside
    with pytest.raises(ValueError, match="rise"):
        excess(decoder, shapes, log_nH, view, counts=(1e4, 1e3))


def test_classes_are_told_apart():
    value = torch.tensor([1.0, 2.0, 9.0, 5.0])
    table = by_class(value, torch.tensor([0, 0, 0, 2]), ["star", "agn", "cv"])
    assert list(table) == ["all", "star", "cv"]
    assert table["star"] == {"sources": 3, "median": 2.0, "mean": 4.0}
    assert table["cv"]["sources"] == 1
