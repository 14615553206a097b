"""Tempered Monte Carlo against posteriors known in closed form or by quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.inference.smc import StandardNormal, TemperOptions, _gamma, _Reference, systematic, temper


@dataclass(frozen=True)
class Linear:
    """Data y = A x + noise of unit variance, x ~ N(0, 1): Gaussian posteriors, one per row of y."""

    matrix: Tensor
    data: Tensor

    def log_likelihood(self, x: Tensor, rows: Tensor) -> Tensor:
        return -0.5 * (self.data[rows].to(x).unsqueeze(1) - x @ self.matrix.T.to(x)).square().sum(-1)

    @property
    def covariance(self) -> Tensor:
        return torch.linalg.inv(self.matrix.T @ self.matrix + torch.eye(self.matrix.shape[1]).double())

    @property
    def mean(self) -> Tensor:
        return self.data @ self.matrix @ self.covariance

    @property
    def log_evidence(self) -> Tensor:
        square = (self.data.square().sum(-1) - ((self.data @ self.matrix) * self.mean).sum(-1)).double()
        return 0.5 * torch.logdet(self.covariance) - 0.5 * square


def linear(dimension: int, problems: int, seed: int = 1) -> tuple[Linear, Tensor]:
    """A problem with widths from 0.01 to 1 of the prior's along directions of no coordinate, and the true x."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn((dimension, dimension), generator=generator, dtype=torch.float64))[0]
    matrix = torch.diag(torch.logspace(-0.5, 2, dimension, dtype=torch.float64)) @ turn
    truth = torch.randn((problems, dimension), generator=generator, dtype=torch.float64)
    noise = torch.randn((problems, dimension), generator=generator, dtype=torch.float64)
    return Linear(matrix, truth @ matrix.T + noise), truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_posteriors_of_fourteen_dimensions(dtype):
    problem, _ = linear(14, 6)
    found = temper(problem.log_likelihood, StandardNormal(14, dtype), 6)
    assert found.values.dtype == dtype
    assert found.values.shape == (6, 768, 14)
    factor = torch.linalg.cholesky(problem.covariance)
    standard = torch.linalg.solve_triangular(
        factor, (found.values.double() - problem.mean.unsqueeze(1)).transpose(-1, -2), upper=False
    )
    assert standard.mean(-1).abs().max() < 0.2
    assert standard.mean((0, 2)).abs().max() < 0.06
    # widths averaged over the problems: an error of 1.0 % each
    assert (standard.std(-1).mean(0) - 1.0).abs().max() < 0.05
    assert abs(float(standard.std(-1).mean()) - 1.0) < 0.012
    off = found.log_evidence - problem.log_evidence
    assert off.abs().max() < 0.6
    assert abs(float(off.mean())) < 0.3


def test_every_problem_goes_its_own_way():
    problem, _ = linear(3, 4)
    weak = Linear(problem.matrix * torch.tensor(0.05), problem.data * 0.05)

    def likelihood(x, rows):
        scale = torch.where(rows < 2, 1.0, 0.0).to(x).unsqueeze(-1)
        return scale * problem.log_likelihood(x, rows) + (1.0 - scale) * weak.log_likelihood(x, rows)

    found = temper(likelihood, StandardNormal(3), 4)
    assert all(len(found.temperatures[i]) > len(found.temperatures[j]) for i in (0, 1) for j in (2, 3))
    for path in found.temperatures:
        assert list(path) == sorted(path)
        assert path[-1] == 1.0
    for source, rows in ((problem, slice(0, 2)), (weak, slice(2, 4))):
        pull = (found.values.mean(1) - source.mean)[rows] / torch.diagonal(source.covariance).sqrt()
        assert pull.abs().max() < 0.2


def test_two_modes_keep_their_weights():
    def likelihood(x, rows):
        across = x[..., 1:].square().sum(-1) / 0.04
        modes = [math.log(w) - 0.5 * (((x[..., 0] - m) / 0.1).square() + across) for w, m in ((0.7, 1.0), (0.3, -1.0))]
        return torch.logaddexp(*modes)

    found = temper(likelihood, StandardNormal(10, torch.float32), 6, TemperOptions(most=30))
    share = (found.values[..., 0] > 0).double().mean(1)
    assert (share - 0.7).abs().max() < 0.1
    assert abs(float(share.mean()) - 0.7) < 0.035
    width = 0.1 / math.sqrt(1.0 + 0.01)
    assert (found.values[..., 0].abs().std(1).mean() / width) == pytest.approx(1.0, abs=0.04)


def test_a_bent_ridge():
    def likelihood(x, rows):
        return -0.5 * ((x[..., 1::2] - x[..., 0::2].square() + 1.0) / 0.1).square().sum(-1)

    found = temper(likelihood, StandardNormal(4, torch.float32), 8, TemperOptions(most=40))
    # the second coordinate integrated out: a^2 - 1 has the variance 1 + 0.1^2
    a = torch.linspace(-5, 5, 20001, dtype=torch.float64)
    density = torch.exp(-0.5 * a**2 - 0.5 * (a**2 - 1.0) ** 2 / 1.01)
    density /= density.sum()
    for power, tolerance in ((2, 0.05), (4, 0.08)):
        expected = float((density * a**power).sum())
        measured = float(found.values[..., 0::2].double().pow(power).mean())
        assert measured == pytest.approx(expected, rel=tolerance)
    gaussian, _ = linear(4, 8)
    straight = temper(gaussian.log_likelihood, StandardNormal(4, torch.float32), 8)
    per_stage = [float((d.moves / torch.tensor([len(t) for t in d.temperatures])).mean()) for d in (found, straight)]
    assert per_stage[0] > 2.0 * per_stage[1], "moves are added where positions are remembered"


class Positive:
    """Flat between 0 and 1 in two coordinates."""

    def sample(self, particles, rows, generator):
        return torch.rand((len(rows), particles, 2), generator=generator, dtype=torch.float64)

    def log_prob(self, values, rows):
        inside = ((values > 0.0) & (values < 1.0)).all(-1)
        return torch.where(inside, 0.0, -math.inf).to(values)


def test_a_posterior_against_its_bound():
    found = temper(lambda x, rows: -20.0 * x[..., 0], Positive(), 6)
    x = found.values[..., 0]
    assert x.min() > 0
    # an exponential distribution of scale 1/20
    assert float(x.mean()) == pytest.approx(0.05, rel=0.06)
    assert float(x.std(1).mean()) == pytest.approx(0.05, rel=0.08)
    assert found.log_evidence.mean() == pytest.approx(math.log((1.0 - math.exp(-20.0)) / 20.0), abs=0.1)
    assert float(found.values[..., 1].std(1).mean()) == pytest.approx(1.0 / math.sqrt(12.0), rel=0.04)


def test_intervals_cover():
    problem, truth = linear(6, 100, seed=8)
    found = temper(problem.log_likelihood, StandardNormal(6, torch.float32), 100, TemperOptions(particles=256))
    rank = (found.values < truth.unsqueeze(1)).double().mean(1)
    inside = ((rank > 0.16) & (rank < 0.84)).double().mean()
    # 600 ranks: a binomial error of 0.019, not all independent
    assert float(inside) == pytest.approx(0.68, abs=0.05)


def test_the_seed_decides():
    problem, _ = linear(4, 2)

    def drawn(seed):
        options = TemperOptions(particles=64, seed=seed)
        return temper(problem.log_likelihood, StandardNormal(4), 2, options).values

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_the_bound_on_moves_holds_and_what_is_left_is_told():
    def likelihood(x, rows):
        return -0.5 * ((x[..., 1] - x[..., 0].square() + 1.0) / 0.02).square()

    found = temper(likelihood, StandardNormal(2), 1, TemperOptions(most=6))
    assert int(found.moves) <= 6 * len(found.temperatures[0])
    assert float(found.correlation) > TemperOptions().final


def test_a_likelihood_that_is_zero_for_most_draws():
    def likelihood(x, rows):
        return torch.where(x[..., 0] > 1.0, 0.0, -math.inf).to(x)

    found = temper(likelihood, StandardNormal(2), 3, TemperOptions(particles=2000))
    assert found.values[..., 0].min() > 1.0
    assert (found.log_evidence - math.log(0.158655)).abs().max() < 0.2


def test_not_a_number_is_no_likelihood():
    found = temper(lambda x, rows: torch.sqrt(x[..., 0]), StandardNormal(2), 1, TemperOptions(particles=200))
    assert found.values[..., 0].min() >= 0.0
    assert torch.isfinite(found.log_likelihood).all()


def test_a_likelihood_that_is_zero_everywhere_is_refused():
    with pytest.raises(UserError, match="zero at every draw"):
        temper(lambda x, rows: torch.full(x.shape[:-1], -math.inf), StandardNormal(2), 1, TemperOptions(particles=10))


def test_systematic_resampling_keeps_what_is_expected():
    generator = torch.Generator().manual_seed(2)
    probability = torch.rand((5, 100), generator=generator).double()
    probability /= probability.sum(-1, keepdim=True)
    chosen = systematic(probability, generator)
    for i in range(5):
        kept = torch.bincount(chosen[i], minlength=100)
        assert ((kept - 100 * probability[i]).abs() < 1.0).all()


def test_the_crank_nicolson_move_keeps_the_t_distribution():
    generator = torch.Generator().manual_seed(5)
    size, count = 3, 100_000
    reference = _Reference(torch.randn((1, 2000, size), generator=generator, dtype=torch.float64))
    reference.tails = torch.tensor([7.0], dtype=torch.float64)
    normal = torch.randn((1, count, size), generator=generator, dtype=torch.float64)
    variance = 3.5 / _gamma(torch.full((1, count, 1), 3.5, dtype=torch.float64), generator)
    scale = math.sqrt(5.0 / 7.0)
    x = reference.mean + scale * (variance.sqrt() * normal) @ reference.factor.transpose(-1, -2)
    moved, ratio = reference.crank_nicolson(x, torch.tensor([0.7], dtype=torch.float64), generator)
    before, after = (reference.whitened(each) for each in (x, moved))
    for power in (1, 2):
        assert float(after.abs().pow(power).mean() / before.abs().pow(power).mean()) == pytest.approx(1.0, abs=0.02)
    q = [each.square().sum(-1) / scale**2 for each in (before, after)]
    torch.testing.assert_close(ratio, 0.5 * (7.0 + size) * torch.log((1.0 + q[1] / 7.0) / (1.0 + q[0] / 7.0)))


def test_gamma_draws():
    generator = torch.Generator().manual_seed(6)
    drawn = _gamma(torch.full((100_000,), 5.5, dtype=torch.float64), generator)
    assert float(drawn.mean()) == pytest.approx(5.5, rel=0.01)
    assert float(drawn.var()) == pytest.approx(5.5, rel=0.03)
