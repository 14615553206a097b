"""Small configurations of the noisy stages, toy weights for them, and a small catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deepspec.learned.checkpoint import Weights
from deepspec.learned.decoder import DecoderConfig, build_decoder
from deepspec.learned.flow import FlowConfig, build_flow
from deepspec.learned.modules import make_weights
from deepspec.training.cameras import camera
from deepspec.training.config import TrainConfig
from deepspec.training.dataset_file import COLUMNS, Writer
from deepspec.training.rebinning import Redistribution

DECODER = {"latent": 3, "templates": 8, "trunk_width": 16, "trunk_layers": 2, "frequency": 3.0, "branch": [16]}


def small_config(stage: str, **settings) -> TrainConfig:
    """One camera, few sources, small networks; `settings` are those of the stage."""
    common = {"batch": 32, "steps": 60, "rate": 3e-3, "counts": [100.0, 2000.0], "own": 0.0}
    return TrainConfig.from_dict(
        {
            "decoder": DECODER,
            "encoder": {"widths": [48, 32]},
            "cameras": {"names": ["pn"], "relatives": 0},
            "populations": {"block": 256, "blocks": 2, "reuse": 100},
            "stage": {stage: {**common, **settings}},
        }
    )


def toy_decoder() -> Weights:
    """Weights with a decoder and a flow, without encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        decoder = build_decoder(DecoderConfig.from_dict(DECODER))
        with torch.no_grad():
            # falling like a source, differing visibly over N(0,1)
            decoder.branch.net[-1].weight.mul_(3.0)
            decoder.branch.net[-1].bias[decoder.config.templates] = -6.0
        return make_weights(
            decoder, build_flow(FlowConfig(latent=3, transforms=1, bins=4, hidden=(8,))), card={"name": "toy"}
        )


def write_catalogue(path: Path, count: int = 300, seed: int = 0) -> Path:
    """A catalogue of `count` power laws through two matrices, with background."""
    rng = np.random.default_rng(seed)
    pn = camera("pn")
    total = pn.matrix.sum(1)
    probability = np.divide(pn.matrix, total[:, None], out=np.zeros_like(pn.matrix), where=total[:, None] > 0)
    none = np.zeros(0, dtype=np.int16)
    matrices = [
        Redistribution(f"m{i}.rmf", f"{i}" * 64, probability.astype("f4"), np.ones(600, "f4"), none, 0)
        for i in range(2)
    ]
    expected = np.exp(-np.linspace(0, 6, 600) * rng.uniform(0.5, 1.5, (count, 1))) @ pn.matrix
    expected *= rng.uniform(300, 2000, (count, 1)) / expected.sum(1, keepdims=True)
    rows = {name: np.zeros((count, *column.shape), column.dtype) for name, column in COLUMNS.items()}
    rows |= {
        "counts": rng.poisson(expected + 0.2).astype("u4"),
        "background": rng.poisson(2.0, (count, 238)).astype("u4"),
        "valid": np.broadcast_to(pn.area > 0, (count, 238)).astype("u1"),
        "ratio": np.full(count, 0.1),
        "exposure": np.full(count, 1e4),
        "arf": np.broadcast_to(total, (count, 600)).astype("f4"),
        "rmf": (np.arange(count) % 2).astype("u2"),
        "split": rng.integers(0, 2**32, count).astype("u4"),
    }
    writer = Writer(path, {"settings": {}})
    writer.append(rows)
    writer.close(matrices)
    return path
