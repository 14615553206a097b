"""The training loop: schedules, the log, and that a run which is cut goes on as if it had not been."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from deepspec.errors import DeepspecWarning, UserError
from deepspec.learned.checkpoint import read_weights
from deepspec.training.distributed import Group
from deepspec.training.endings import Interrupted, only_run, signals
from deepspec.training.loop import follow, rate_at, run, state_path, weights_path
from deepspec.training.sections import DecoderStageConfig, StageConfig
from deepspec.training.stage import mixed, seeded
from deepspec.training.state import read_state, write_state
from tests.training.toy_stage import ToyStage, losses, toy_config

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("toy_stage.py")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of 60 steps that nobody cut."""
    folder = tmp_path_factory.mktemp("whole")
    run(ToyStage(toy_config()), folder)
    return folder


class Poisoned(ToyStage):
    poison = (33, float("nan"))


def cut(folder, step, act, **run_settings):
    """Run until `step`, where `act` happens while its batch is made."""
    stage = ToyStage(toy_config(**run_settings))
    usual = stage.batch

    def batch(number):
        if number == step:
            act()
        return usual(number)

    stage.batch = batch
    run(stage, folder)


def fail():
    raise ZeroDivisionError("cut")


# --- schedules ---


def test_the_rate_rises_then_falls_to_its_final_fraction():
    settings = StageConfig(steps=1000, rate=2.0, warm_up=0.1)
    rates = [rate_at(settings, 0.05, step) for step in range(1000)]
    top = rates.index(max(rates))
    assert top == 100
    assert max(rates) == pytest.approx(2.0)
    assert all(a < b for a, b in pairwise(rates[:101]))
    assert all(a > b for a, b in pairwise(rates[100:]))
    assert rates[-1] == pytest.approx(0.1, rel=1e-3)
    assert rates[550] == pytest.approx(0.5 * (2.0 + 0.1))


def test_steps_stretch_all_schedules():
    short, long = DecoderStageConfig(steps=100), DecoderStageConfig(steps=1000)
    for step in range(0, 100, 7):
        assert short.beta_at(step) == pytest.approx(long.beta_at(10 * step))
        if step > 1:
            assert rate_at(short, 0.01, step) == pytest.approx(rate_at(long, 0.01, 10 * step))


def test_the_divergence_is_held_back_then_counts_in_full():
    settings = DecoderStageConfig(steps=1000, beta=0.02, beta_hold=0.4, beta_full=0.75)
    assert settings.beta_at(0) == settings.beta_at(400) == 0.02
    assert settings.beta_at(575) == pytest.approx(0.51)
    assert settings.beta_at(750) == settings.beta_at(999) == pytest.approx(1.0)
    at_once = DecoderStageConfig(steps=10, beta=0.0, beta_hold=0.5, beta_full=0.5)
    assert [at_once.beta_at(s) for s in (4, 5)] == [0.0, 1.0]


def test_the_average_forgets_the_start_and_then_has_its_memory():
    module, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1.0), average.weight.fill_(1e6)
    for step in range(200):
        follow(average, module, step, 0.99)
    assert average.weight.item() == pytest.approx(1.0, abs=1e-6)
    before = average.weight.item()
    with torch.no_grad():
        module.weight.fill_(2.0)
    follow(average, module, 10**6, 0.99)
    assert average.weight.item() == pytest.approx(before + 0.01, rel=1e-5)


def test_random_numbers_depend_on_every_number():
    seeds = {mixed(*numbers) for numbers in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0), (0, 0, 0, 1)]}
    assert len(seeds) == 6
    assert torch.equal(torch.randn(3, generator=seeded("cpu", 1, 2)), torch.randn(3, generator=seeded("cpu", 1, 2)))


# --- what a run leaves ---


def test_it_learns_and_logs(whole):
    rows = losses(whole)
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    first, last = (sum(float(r["loss"]) for r in part) for part in (rows[:10], rows[-10:]))
    assert last < 0.8 * first
    assert all(row["rms"] == "" for row in rows if int(row["step"]) % 20)
    assert [row["step"] for row in rows if row["rms"]] == ["20", "40", "60"]
    assert float(rows[-1]["rms"]) < float(rows[19]["rms"])
    assert [float(row["rate"]) for row in rows] == pytest.approx(
        [rate_at(toy_config().stage["decoder"], 0.01, s) for s in range(60)]
    )


def test_a_figure_of_validation_does_not_replace_one_of_training(whole):
    last = losses(whole)[-1]
    assert float(last["validation loss"]) == pytest.approx(float(last["rms"]) ** 2)
    assert last["loss"] != last["validation loss"]


def test_a_row_of_the_log_is_the_mean_since_the_last(whole, tmp_path):
    run(ToyStage(toy_config(log_every=7)), tmp_path)
    single, rows = losses(whole), losses(tmp_path)
    assert [int(row["step"]) for row in rows] == [7, 14, 20, 21, 28, 35, 40, 42, 49, 56, 60]
    assert float(rows[1]["loss"]) == pytest.approx(sum(float(r["loss"]) for r in single[7:14]) / 7, rel=1e-12)
    assert float(rows[3]["loss"]) == float(single[20]["loss"])


def test_the_averaged_weights_are_written_with_their_origin(whole):
    weights, state = read_weights(weights_path(whole, "decoder")), read_state(state_path(whole, "decoder"))
    for name, array in weights.decoder.arrays.items():
        assert torch.equal(torch.from_numpy(array), state.average[f"decoder.{name}"])
        assert not torch.equal(torch.from_numpy(array), state.module[f"decoder.{name}"])
    card = weights.card["stages"]["decoder"]
    assert (card["step"], card["steps"], card["seed"]) == (60, 60, 0)
    assert card["validation"]["rms"] == pytest.approx(float(losses(whole)[-1]["rms"]))
    assert weights.card["config"] == toy_config().as_dict()


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    before = torch.random.get_rng_state()
    run(ToyStage(toy_config(3)), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_progress_is_told(tmp_path):
    told = []
    run(ToyStage(toy_config(40, log_every=10)), tmp_path, report=told.append)
    assert [now.step for now in told] == [10, 20, 30, 40]
    assert [now.validated for now in told] == [False, True, False, True]
    assert all(now.speed > 0 and next(iter(now.validation)) == "rms" for now in told)
    assert told[-1].seconds_left == 0


# --- a run that is cut ---


@pytest.mark.parametrize("step", [5, 20, 33])
def test_a_run_that_failed_goes_on_with_the_same_losses(whole, tmp_path, step):
    """Cut before the first state, right after one, and between two."""
    with pytest.raises(ZeroDivisionError):
        cut(tmp_path, step, fail)
    rows = losses(tmp_path)
    run(ToyStage(toy_config()), tmp_path, resume=True)
    assert len(rows) == step
    assert losses(tmp_path) == losses(whole)
    for one, other in zip(
        *(read_state(state_path(f, "decoder")).module.values() for f in (whole, tmp_path)), strict=True
    ):
        assert torch.equal(one, other)


def test_sums_between_two_rows_survive(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    run(ToyStage(toy_config(log_every=10)), tmp_path / "whole")
    with pytest.raises(Interrupted):
        cut(tmp_path / "cut", 24, lambda: os.kill(os.getpid(), signal.SIGTERM), log_every=10)
    run(ToyStage(toy_config(log_every=10)), tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_the_step_and_says_how_to_go_on(whole, tmp_path, number):
    # not Python's own where the tests were started in the background, which ignores Ctrl-C
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"after step 26 of 60 .*--resume") as caught:
        cut(tmp_path, 25, lambda: os.kill(os.getpid(), number))
    assert caught.value.exit_code == 130
    assert read_state(state_path(tmp_path, "decoder")).step == 26
    run(ToyStage(toy_config()), tmp_path, resume=True)
    assert losses(tmp_path) == losses(whole)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_it_at_once():
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with signals() as asked, pytest.raises(KeyboardInterrupt):
        twice()
    assert asked.stop


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0, 60], ids=["state every step", "state at validations"])
def test_a_killed_process_goes_on_with_the_same_losses(whole, tmp_path, minutes):
    process = program(tmp_path, "--wait", "0.02", "--minutes", minutes)
    log, begun = tmp_path / "decoder.csv", time.monotonic()
    while not log.exists() or log.read_text().count("\n") < 28:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - begun < 120
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 20 <= read_state(state_path(tmp_path, "decoder")).step < 60
    assert read_weights(weights_path(tmp_path, "decoder")).card["stages"]["decoder"]["step"] >= 20
    assert program(tmp_path, "--resume").wait() == 0
    assert losses(tmp_path) == losses(whole)


@pytest.mark.slow
def test_a_process_killed_while_it_writes_its_state_goes_on(whole, tmp_path):
    process = program(tmp_path, "--die", 31)
    assert process.wait() == -signal.SIGKILL
    assert read_state(state_path(tmp_path, "decoder")).step == 30
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")], "it was not killed half-way"
    assert program(tmp_path, "--resume").wait() == 0
    assert losses(tmp_path) == losses(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["decoder-state.h5", "decoder.csv", "decoder.h5", "rank0.pt"]


def program(folder, *words) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}
    return subprocess.Popen([sys.executable, PROGRAM, folder, *map(str, words)], env=environment)


def test_a_torn_row_is_dropped(whole, tmp_path):
    with pytest.raises(ZeroDivisionError):
        cut(tmp_path, 33, fail)
    with open(tmp_path / "decoder.csv", "a") as stream:
        stream.write("34,0.5")
    run(ToyStage(toy_config()), tmp_path, resume=True)
    assert losses(tmp_path) == losses(whole)


def test_a_complete_stage_is_passed_over(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    figures = run(ToyStage(toy_config()), folder, resume=True)
    assert figures["two"] == 2.0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


# --- refusals ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_last_good_state(tmp_path, value):
    stage = Poisoned(toy_config())
    stage.poison = (33, value)
    with pytest.raises(UserError, match=r"at step 34; .*step 20 in .*decoder-state.h5; go on .*--resume --rate 0.003"):
        run(stage, tmp_path)
    assert all(torch.isfinite(t).all() for t in read_state(state_path(tmp_path, "decoder")).module.values())
    assert read_weights(weights_path(tmp_path, "decoder")).card["stages"]["decoder"]["step"] == 20


def test_a_bad_loss_is_never_saved_however_often_states_are_written(tmp_path):
    with pytest.raises(UserError, match="step 33 in"):
        run(Poisoned(toy_config(minutes=0)), tmp_path)
    assert read_state(state_path(tmp_path, "decoder")).step == 33


def test_without_a_state_only_the_rate_can_help(tmp_path):
    stage = Poisoned(toy_config())
    stage.poison = (3, float("nan"))
    with pytest.raises(UserError, match=r"lower the rate: --rate 0.003\.$"):
        run(stage, tmp_path)


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't")],
)
def test_too_little_memory_names_the_setting(tmp_path, error):
    def out_of_memory():
        raise error

    with pytest.raises(UserError, match=r"\[stage.decoder\] batch: .*--set stage.decoder.batch=16"):
        cut(tmp_path, 3, out_of_memory)


def test_other_errors_are_not_taken_for_it(tmp_path):
    def other():
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cut(tmp_path, 3, other)


def test_an_earlier_run_is_not_overwritten(whole):
    before = (whole / "decoder.csv").read_bytes()
    with pytest.raises(UserError, match="add --resume"):
        run(ToyStage(toy_config()), whole)
    assert (whole / "decoder.csv").read_bytes() == before


def test_two_runs_do_not_share_a_folder(tmp_path):
    with only_run(tmp_path, Group()), pytest.raises(UserError, match="another training run"):
        run(ToyStage(toy_config()), tmp_path)
    run(ToyStage(toy_config(2)), tmp_path)


def test_another_network_is_refused(whole):
    config = toy_config().with_changes({"decoder": {"branch": [9]}})
    with pytest.raises(UserError, match=r"begun with decoder.branch = \[8\], not \[9\]"):
        run(ToyStage(config), whole, resume=True)


def test_other_settings_are_told(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    config = toy_config(80, minutes=3).with_changes({"stage": {"decoder": {"rate": 0.001}}})
    with pytest.warns(DeepspecWarning, match=r"stage.decoder.rate 0.01 -> 0.001, stage.decoder.steps 60 -> 80$"):
        run(ToyStage(config), folder, resume=True)
    assert losses(folder)[:60] == losses(whole)
    assert len(losses(folder)) == 80


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", None], ids=["empty", "foreign", "truncated"])
def test_a_spoilt_state_is_refused(whole, tmp_path, content):
    path = state_path(tmp_path, "decoder")
    good = state_path(whole, "decoder").read_bytes()
    path.write_bytes(good[: len(good) // 2] if content is None else content)
    with pytest.raises(UserError, match="cannot be read as a training state"):
        run(ToyStage(toy_config()), tmp_path, resume=True)


def test_a_state_of_another_kind_is_refused(whole, tmp_path):
    shutil.copyfile(weights_path(whole, "decoder"), state_path(tmp_path, "decoder"))
    with pytest.raises(UserError, match="is not a state of this version"):
        run(ToyStage(toy_config()), tmp_path, resume=True)


def test_a_state_comes_back_as_it_was(whole, tmp_path):
    state = read_state(state_path(whole, "decoder"))
    write_state(tmp_path / "again.h5", state)
    again = read_state(tmp_path / "again.h5")
    assert (again.step, again.config, again.validation) == (60, state.config, state.validation)
    assert state.optimiser
    for number, moments in state.optimiser.items():
        assert all(torch.equal(moments[name], again.optimiser[number][name]) for name in moments)


# --- precision ---


def first_losses(folder, **settings):
    folder.mkdir()
    run(ToyStage(toy_config(6, **settings)), folder)
    return [float(row["loss"]) for row in losses(folder)]


def test_half_precision_agrees_with_single(tmp_path):
    """bfloat16 has 8 bits: products to 0.4 %, a mean loss over 600 bins and 32 spectra to 1 %."""
    single = first_losses(tmp_path / "single")
    half = first_losses(tmp_path / "half", precision="bfloat16")
    assert half == pytest.approx(single, rel=1e-2)
    assert half != single


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_agrees_with_eager(tmp_path, monkeypatch):
    """The same float32 operations in another order; random numbers of torch's own generator are made as in eager mode."""
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)
    eager = first_losses(tmp_path / "eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its compiler
        fast = first_losses(tmp_path / "compiled", compile=True)
    assert fast == pytest.approx(eager, rel=1e-4)


def test_compiling_without_a_compiler_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"C\+\+ compiler.*run.compile=false"):
        run(ToyStage(toy_config(2, compile=True)), tmp_path)


def test_finite_everywhere(whole):
    assert all(math.isfinite(float(row["loss"])) and math.isfinite(float(row["gradient"])) for row in losses(whole))
