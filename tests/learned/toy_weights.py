"""Small files of weights for tests: random but smooth spectra, the same for the same settings on every machine."""

from __future__ import annotations

from pathlib import Path

import torch

from deepspec.learned.checkpoint import write_weights
from deepspec.learned.decoder import DecoderConfig, build_decoder
from deepspec.learned.flow import FlowConfig, build_flow
from deepspec.learned.modules import make_weights


def toy_modules(latent: int = 3, flow: bool = True, seed: int = 1, **settings):
    """A decoder and a flow (or None) with random weights.

    Parameters
    ----------
    latent : int
    flow : bool
    seed : int
    **settings
        Of the `DecoderConfig`; small ones otherwise.
    """
    small = {"templates": 8, "trunk_width": 16, "trunk_layers": 2, "frequency": 3.0, "branch": (16, 16)}
    config = DecoderConfig(latent=latent, **{**small, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = build_decoder(config)
        made = (
            build_flow(FlowConfig(latent=latent, transforms=2 if latent > 1 else 0, bins=4, hidden=(8,)))
            if flow
            else None
        )
        with torch.no_grad():
            if config.kind == "deeponet":
                _bend(decoder, config)
            if made is not None:
                for parameter in made.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder, made


def _bend(decoder, config) -> None:
    """Make z1 the slope of the spectrum, z2 its curvature, and all of them together the amplitudes of faint wiggles."""
    *hidden, last = decoder.branch.net
    z = 1.5 * torch.randn(2000, config.latent)
    features = z
    for part in hidden:
        features = part(features)
    targets = torch.zeros(len(z), last.out_features)
    targets[:, : config.templates] = 0.3 * z @ torch.randn(config.latent, config.templates)
    targets[:, config.templates] = -1.5 + z[:, 0]
    targets[:, config.templates + 1] = -0.5 + 0.5 * z[:, 1 % config.latent]
    found = torch.linalg.lstsq(torch.cat([features, torch.ones(len(z), 1)], -1), targets).solution
    last.weight.copy_(found[:-1].T)
    last.bias.copy_(found[-1])


def toy_weights(folder: str | Path, latent: int = 3, flow: bool = True, seed: int = 1, **settings) -> Path:
    """Write toy weights as ``toy.h5`` into `folder`; the path."""
    decoder, made = toy_modules(latent, flow, seed, **settings)
    path = Path(folder) / "toy.h5"
    card = {
        "name": "toy",
        "summary": "random weights for tests",
        "made": "2026-01-01",
        "command": "tests/learned/toy_weights.py",
        "band": [0.3, 10.0],
    }
    write_weights(path, make_weights(decoder, made, card=card))
    return path
