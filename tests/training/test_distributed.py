"""Devices, and two processes on one job (gloo, on the CPU)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepspec.errors import UserError
from deepspec.training.distributed import Group, find_device, group
from deepspec.training.loop import run
from deepspec.training.state import read_state
from tests.training.toy_stage import ToyStage, losses, toy_config

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("toy_stage.py")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def test_one_process_agrees_with_itself():
    module = torch.nn.Linear(1, 1)
    assert Group().wrap(module) is module
    assert Group().any(True, False) == (True, False)
    with group("cpu") as alone:
        assert (alone.rank, alone.world, alone.device.type) == (0, 1, "cpu")


@no_gpu
def test_auto_takes_the_processor_where_there_is_no_gpu():
    assert find_device("auto").type == "cpu"


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(name):
    with pytest.raises(UserError, match=r"--device: no CUDA device .*--device cpu"):
        find_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_what_is_no_device_of_ours(name):
    with pytest.raises(UserError, match=r"--device: .*give auto, cpu, cuda"):
        find_device(name)


def test_processes_see_different_data():
    one, other, again = (ToyStage(toy_config(), rank=rank, world=2).batch(0) for rank in (0, 1, 0))
    assert not torch.equal(one["x"], other["x"])
    assert torch.equal(one["x"], again["x"])


def torchrun(folder, *words) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, PROGRAM, folder, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    """Both end with the same weights, though they began with different ones; and a cut changes nothing."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    torchrun(tmp_path / "whole")
    first, second = (torch.load(tmp_path / "whole" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = losses(tmp_path / "whole")
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    early, late = (sum(float(row["loss"]) for row in part) for part in (rows[:10], rows[-10:]))
    assert late < 0.8 * early
    state = read_state(tmp_path / "whole" / "decoder-state.h5")
    assert (state.step, state.config["processes"]) == (60, 2)
    assert all(torch.equal(first[name], state.module[name]) for name in first)

    alone = tmp_path / "alone"
    run(ToyStage(toy_config(1)), alone)
    assert losses(alone)[0]["loss"] == rows[0]["loss"], "the first process has the data it has alone"
    assert losses(alone)[0]["gradient"] != rows[0]["gradient"], "the gradient is of both"

    with pytest.raises(AssertionError):
        torchrun(tmp_path / "cut", "--die", "31")
    torchrun(tmp_path / "cut", "--resume")
    assert losses(tmp_path / "cut") == rows
