"""Trunk, branch, shifting and settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.branch import Branch
from deepspec.learned.decoder import DecoderConfig
from deepspec.learned.flow import FlowConfig
from deepspec.learned.grids import BAND, CENTRES, COUNT, EDGES, ENERGY_WEIGHTS, STEP, energy_weights
from deepspec.learned.shifting import MARGIN, moved_sum, places, taper
from deepspec.learned.trunk import Siren


def test_energy_weights_are_the_energy_flux_of_a_power_law():
    # photons of E^-2 per bin; its energy flux in the band is the integral of 1/E
    photons = 1.0 / EDGES[:-1] - 1.0 / EDGES[1:]
    # within a bin the spectrum is taken as flat in ln E: second order in the step
    exact = math.log(BAND[1] / BAND[0]) * 1.602176634e-9 / 1e-12
    assert photons @ ENERGY_WEIGHTS == pytest.approx(exact, rel=STEP**2)


def test_energy_weights_of_bands_add_up():
    parts = energy_weights((0.5, 2.0)) + energy_weights((2.0, 10.0))
    np.testing.assert_allclose(parts, energy_weights((0.5, 10.0)), rtol=1e-12, atol=1e-9)


def test_siren_keeps_the_spread_of_its_layers():
    torch.manual_seed(0)
    siren = Siren(4, width=256, layers=4)
    x = places()
    h = torch.sin(siren.frequency * (x[:, None] @ siren.hidden[0].weight.T) + siren.hidden[0].bias)
    for layer in siren.hidden[1:]:
        # arguments of spread about 1 (and the phases) whatever the depth: section 3.2 of Sitzmann et al.
        assert float((h @ layer.weight.T).std().detach()) == pytest.approx(1.0, abs=0.25)
        h = torch.sin(layer(h))
    assert siren(x).shape == (4, COUNT)


def test_siren_oscillates_with_its_frequency():
    def roughness(frequency: float) -> float:
        torch.manual_seed(1)
        return float(Siren(16, frequency=frequency)(places()).diff(dim=-1).square().mean().detach())

    assert roughness(60.0) > 2.0 * roughness(15.0)


def gaussian(centre: float, width: float) -> torch.Tensor:
    bins = torch.arange(-MARGIN, COUNT + MARGIN, dtype=torch.float64) + 0.5
    return torch.exp(-0.5 * ((bins - centre) / width) ** 2)


@pytest.mark.parametrize(("shift", "width"), [(0.0, 1e-3), (10.0, 2.0), (-33.4, 7.5), (0.37, 0.0)])
def test_shift_and_smoothing_of_a_gaussian_are_exact(shift, width):
    template = gaussian(300.0, 6.0)[None] * taper()
    shifts, widths = (torch.full((1, 1), value, dtype=torch.float64) for value in (shift, width))
    found = moved_sum(template, torch.ones(1, 1).double(), shifts, widths)
    broader = math.hypot(6.0, width)
    expected = gaussian(300.0 + shift, broader)[MARGIN:-MARGIN] * 6.0 / broader
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-9)


def test_moved_sum_adds_up_over_templates_and_batches():
    torch.manual_seed(2)
    templates = torch.stack([gaussian(c, 5.0) for c in (100.0, 300.0, 500.0)])
    amplitude, shift, width = torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double(), torch.rand(2, 4, 3).double()
    together = moved_sum(templates, amplitude, shift, width)
    apart = sum(
        moved_sum(templates[[k]], amplitude[..., [k]], shift[..., [k]], width[..., [k]]) for k in range(len(templates))
    )
    assert together.shape == (2, 4, COUNT)
    torch.testing.assert_close(together, apart)


def test_taper_is_one_on_the_grid_and_ends_at_zero():
    found = taper()
    assert (found[MARGIN:-MARGIN] == 1).all()
    assert found[0] < 1e-3
    torch.testing.assert_close(found, found.flip(0))


def test_branch_keeps_shifts_and_widths_in_their_limits():
    torch.manual_seed(3)
    branch = Branch(5, templates=7, moving=3, widths=(16,), largest_shift=60.0)
    found = branch(100.0 * torch.randn(50, 5))
    assert found.amplitude.shape == (50, 7)
    assert found.slope.shape == (50, 2)
    assert found.shift.abs().max() <= 60.0
    assert (found.width >= 0).all()


def test_centres_lie_inside_their_bins():
    assert ((EDGES[:-1] < CENTRES) & (CENTRES < EDGES[1:])).all()


def test_settings_survive_the_way_through_plain_data():
    config = DecoderConfig(latent=3, templates=8, moving=2, branch=(16, 8))
    assert DecoderConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (DecoderConfig, {"latents": 3}, "latent"),
        (DecoderConfig, {"latent": 0}, "1 to 64"),
        (DecoderConfig, {"latent": "three"}, "not a int"),
        (DecoderConfig, {"latent": True}, "not a int"),
        (DecoderConfig, {"combine": "product"}, "linear"),
        (DecoderConfig, {"templates": 4, "moving": 5}, "0 to 4"),
        (DecoderConfig, {"templates": 4, "combine": "both", "moving": 3}, "0 to 2"),
        (DecoderConfig, {"branch": [16, -1]}, "positive whole numbers"),
        (DecoderConfig, {"largest_shift": 90.0}, "84"),
        (FlowConfig, {"bins": 1}, "2 to 64"),
        (FlowConfig, {"latent": 1}, "0 for one"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(kind, values, said):
    with pytest.raises(UserError, match=said) as caught:
        kind.from_dict(values, source="run.toml")
    assert "run.toml" in str(caught.value)
