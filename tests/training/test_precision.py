"""Half precision and compiled code against single precision, for a few steps of the decoder's own stage."""

from __future__ import annotations

import csv
import shutil
import warnings

import pytest

from deepspec.training.config import load_config
from deepspec.training.recipe import train

pytestmark = pytest.mark.slow
SMALL = [
    "stage.decoder.batch=64",
    "populations.block=512",
    "populations.blocks=1",
    "run.log_every=1",
    "stage.decoder.steps=8",
]


def first_losses(folder, *changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its compiler
        train(load_config(preset="tiny", changes=[*SMALL, *changes]), folder, "decoder", device="cpu")
    with open(folder / "decoder.csv", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return first_losses(tmp_path_factory.mktemp("single"))


def test_half_precision_agrees_with_single(single, tmp_path):
    """bfloat16 has 8 bits: losses agree to 3 % before the runs go separate ways."""
    half = first_losses(tmp_path, "run.precision=bfloat16")
    assert half == pytest.approx(single, rel=3e-2)
    assert half != single


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_agrees_with_eager(single, tmp_path):
    """The same float32 operations in another order."""
    assert first_losses(tmp_path, "run.compile=true") == pytest.approx(single, rel=1e-4)
