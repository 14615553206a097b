"""Simulated observations: what was drawn is what the counts say, and a step is a function of its number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from deepspec.errors import UserError
from deepspec.learned.grids import BAND, CENTRES, COUNT, DETECTOR_COUNT, DETECTOR_EDGES, ENERGY_WEIGHTS
from deepspec.training.cameras import CameraBank, camera
from deepspec.training.foreground import SIGMA
from deepspec.training.observations import (
    ObservationSettings,
    ObservationStream,
    ObservedBatch,
    Simulator,
    _tilts,
    fold,
    training_cameras,
)


class ToySources:
    """Power laws with photon indices from -1 to 4, softest last, and a soft line: unit energy flux in 0.3-10 keV."""

    def __init__(self, size: int):
        index = torch.linspace(-1.0, 4.0, size).unsqueeze(-1)
        energy = torch.tensor(CENTRES, dtype=torch.float32)
        density = energy ** (1.0 - index) + torch.exp(-0.5 * ((energy - 0.65) / 0.01) ** 2)
        self.shape = density / (density @ torch.tensor(ENERGY_WEIGHTS, dtype=torch.float32)).unsqueeze(-1)
        self.label = torch.arange(size)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.shape, self.label


@pytest.fixture(scope="module")
def bank() -> CameraBank:
    return CameraBank(["pn", "mos", "acis_s", "erosita"])


def stream(bank: CameraBank, size: int = 512, seed: int = 1, rank: int = 0, **settings) -> ObservationStream:
    return ObservationStream(ToySources(size), bank, size, seed, rank, ObservationSettings(**settings))


@pytest.fixture(scope="module")
def batch(bank) -> ObservedBatch:
    return stream(bank, 1024).batch(3)


def test_shapes_and_units(batch):
    size = len(batch)
    assert size == 1024
    for name in ("counts", "background_counts", "relative_area", "valid", "expected", "expected_background"):
        assert getattr(batch, name).shape == (size, DETECTOR_COUNT)
    assert batch.alpha.shape == (size, 1)
    assert batch.tilt.shape == batch.shape.shape == (size, COUNT)
    for name in ("log_nH", "log_counts", "exposure", "norm", "camera", "label"):
        assert getattr(batch, name).shape == (size,)
    for name, values in batch.as_dict().items():
        assert torch.isfinite(values).all(), name
    again = ObservedBatch(**batch.as_dict())
    assert again.counts is batch.counts
    seen = batch.seen()
    assert seen.counts is batch.counts
    assert seen.ratio is batch.alpha


def test_expected_counts_are_those_of_the_definition(bank, batch):
    for row in (0, 400, 1023):
        made = camera(bank.names[batch.camera[row]])
        photons = batch.shape[row].double().numpy() * np.exp(-(10.0 ** batch.log_nH[row].item()) * SIGMA)
        rate = (photons * np.exp(batch.tilt[row].double().numpy())) @ made.matrix * batch.valid[row].numpy()
        direct = batch.norm[row].item() * batch.exposure[row].item() * rate
        np.testing.assert_allclose(batch.expected[row].numpy(), direct, rtol=2e-4, atol=1e-5 * direct.max())
    np.testing.assert_allclose(batch.expected.sum(-1).log(), batch.log_counts, atol=1e-4)


def test_the_ranges_are_those_of_the_settings(batch):
    assert kstest(batch.log_counts.numpy(), "uniform", (np.log(10), np.log(1e4))).pvalue > 1e-3
    assert kstest(np.log(batch.alpha.numpy()).ravel(), "uniform", (np.log(0.03), -np.log(0.03))).pvalue > 1e-3
    assert batch.log_nH.min() >= -2.7 - 1e-5
    assert batch.log_nH.max() <= 1.0 + 1e-5
    ratio = (batch.expected_background.sum(-1) / batch.expected.sum(-1)).numpy()
    assert 0.15 < np.mean(ratio > 0.5) < 0.35
    assert np.mean(ratio < 0.005) < 0.05
    bright = batch.log_counts.numpy() > np.log(3e4)
    assert (
        batch.expected_background.sum(-1).numpy()[bright] < 1001 + 0.5 * np.exp(batch.log_counts.numpy()[bright])
    ).all()


def test_counts_scatter_as_poisson_about_what_is_expected(bank):
    repeated = stream(bank, 512, counts=(300.0, 3000.0), narrowed=0.0)
    total, degrees = {"source": 0.0, "region": 0.0}, {"source": 0, "region": 0}
    for step in range(3):
        b = repeated.batch(step)
        pairs = {
            "source": (b.counts, b.expected + b.expected_background),
            "region": (b.background_counts, b.expected_background / b.alpha),
        }
        for name, (drawn, expected) in pairs.items():
            # Bins with few expected counts joined by spectrum, so that chi2 holds
            good = expected > 5
            total[name] += float((((drawn - expected) ** 2 / expected)[good]).double().sum())
            degrees[name] += int(good.sum())
            assert drawn.sum().item() == pytest.approx(expected.sum().item(), abs=5 * expected.sum().item() ** 0.5)
            assert (drawn == drawn.round()).all()
    for name in total:
        # Variance of the Pearson statistic of Poisson counts: 2 + 1/m a bin
        spread = np.sqrt(2.2 * degrees[name])
        assert abs(total[name] - degrees[name]) < 5 * spread, name
    assert degrees["source"] > 50_000
    assert chi2.sf(total["source"], degrees["source"]) > 1e-6


def test_unused_bins_hold_nothing(batch, bank):
    off = ~batch.valid
    for name in ("counts", "background_counts", "expected", "expected_background", "relative_area"):
        assert (getattr(batch, name)[off] == 0).all(), name
    assert (batch.valid <= bank.valid[batch.camera]).all()
    narrowed = (batch.valid != bank.valid[batch.camera]).any(-1).float().mean()
    assert 0.05 < narrowed < 0.2
    assert (batch.relative_area.amax(-1) == 1).all()
    assert (batch.relative_area[batch.valid] > 0).all()
    # What is left is one piece
    assert (torch.diff(batch.valid.int(), dim=-1).abs().sum(-1) <= 2).all()


def test_a_step_depends_on_seed_rank_and_number_alone(bank):
    first = stream(bank, 64).batch(5)
    same = stream(bank, 64)
    same.batch(4)
    again = same.batch(5)
    for name, values in first.as_dict().items():
        torch.testing.assert_close(values, getattr(again, name), rtol=0, atol=0)
    others = (stream(bank, 64, seed=2).batch(5), stream(bank, 64, rank=1).batch(5), stream(bank, 64).batch(6))
    for other in others:
        assert (other.log_counts != first.log_counts).all()
        assert (other.counts != first.counts).any()


def test_each_run_of_spectra_has_its_camera(bank):
    b = stream(bank, 60, cameras_per_step=3).batch(0)
    assert b.cameras.shape == (3,)
    assert b.camera.tolist() == [int(c) for c in b.cameras for _ in range(20)]
    seen = {int(c) for step in range(20) for c in stream(bank, 6, cameras_per_step=2).batch(step).cameras}
    assert seen == set(range(4))


def test_tilts_are_smooth_and_of_the_size_asked_for(bank):
    basis = _tilts()
    inside = (CENTRES > BAND[0]) & (CENTRES < BAND[1])
    assert np.sqrt((basis[:, inside] ** 2).sum(0).mean()) == pytest.approx(1.0, abs=0.01)
    b = stream(bank, 1024, tilt=0.10).batch(0)
    assert b.tilt[:, inside].square().mean().sqrt().item() == pytest.approx(0.10, rel=0.1)
    assert torch.diff(b.tilt).abs().max() < 0.02
    assert (stream(bank, 8, tilt=0.0).batch(0).tilt == 0).all()
    # The encoder sees the tilted area
    flat, tilted = camera(bank.names[b.camera[0]]).area, b.relative_area[0].double().numpy()
    used = b.valid[0].numpy()
    tilt = np.interp(0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1]), CENTRES, b.tilt[0].double().numpy())
    change = np.log(tilted[used] / flat[used])
    np.testing.assert_allclose(change - change[0], (tilt - tilt[used][0])[used], atol=2e-4)


def test_folding_a_prediction_repeats_the_truth(bank, batch):
    folded = fold(batch.shape, batch.log_nH, batch.log_counts, batch, bank)
    torch.testing.assert_close(folded, batch.expected, rtol=1e-5, atol=1e-5)
    # Its norm does not matter; leading axes do not either
    samples = torch.stack([batch.shape, 7.0 * batch.shape])
    several = fold(samples, batch.log_nH.expand(2, -1), batch.log_counts.expand(2, -1), batch, bank)
    torch.testing.assert_close(several[1], batch.expected, rtol=1e-4, atol=1e-4)


def test_folding_is_differentiable():
    bank = CameraBank(["xrt", "acis_i"], dtype=torch.float64)
    b = stream(bank, 4, cameras_per_step=2).batch(0)
    weight = torch.rand(4, DETECTOR_COUNT, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value(scale, log_nH, log_counts):
        shape = b.shape * torch.tensor(CENTRES) ** scale.unsqueeze(-1)
        return (fold(shape, log_nH, log_counts, b, bank) * weight).sum(-1)

    points = [torch.zeros(4, dtype=torch.float64), b.log_nH.clone(), b.log_counts.clamp(max=6.0)]
    assert torch.autograd.gradcheck(value, [p.requires_grad_() for p in points], rtol=1e-5)


def test_a_source_behind_too_much_gas_gets_less(bank):
    # All photons at 0.3 keV: 1e22 cm-2 let nothing of them through
    soft = torch.zeros(2048, COUNT)
    soft[:, np.searchsorted(CENTRES, 0.3) + 2] = 1.0
    simulator = Simulator(bank, ObservationSettings(cameras_per_step=2))
    made = simulator(soft, torch.zeros(2048), torch.tensor([0, 1]), torch.Generator().manual_seed(1))
    through = (made.shape * torch.exp(-(10.0**made.log_nH).unsqueeze(-1) * bank.sigma)).sum(-1)
    assert (through > 1e-5).float().mean() > 0.93
    for values in made.as_dict().values():
        assert torch.isfinite(values).all()
    hard = torch.zeros(2048, COUNT)
    hard[:, np.searchsorted(CENTRES, 8.0)] = 1.0
    free = simulator(hard, torch.zeros(2048), torch.tensor([0, 1]), torch.Generator().manual_seed(1))
    assert (free.log_nH > 0).float().mean() > 0.02
    assert made.log_nH.mean() < free.log_nH.mean() - 0.1


def test_what_cannot_be_is_refused(bank):
    with pytest.raises(UserError, match="a batch of 10 cannot be shared equally by 4 cameras"):
        stream(bank, 10)
    for wrong in ({"counts": (0.0, 10.0)}, {"alpha": (1.0, 0.1)}, {"dominated": 1.5}, {"cameras_per_step": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ObservationSettings(**wrong)
    assert ObservationSettings.from_dict(ObservationSettings(tilt=0.2).as_dict()).tilt == 0.2
    assert replace(ObservationSettings(), tilt=0.0).tilt == 0.0


def test_training_cameras_are_the_typical_ones_and_their_relatives():
    made = training_cameras(("pn", "xrt"), each=1)
    assert [c.name for c in made] == ["pn", "pn 1", "xrt", "xrt 1"]
    assert made[0] is camera("pn")
