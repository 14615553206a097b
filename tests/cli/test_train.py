"""`deepspec train` from the command line."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from click.testing import CliRunner

from deepspec.errors import DeepspecWarning
from deepspec.learned.checkpoint import read_weights
from deepspec.training.config import load_config, presets
from deepspec.training.log import Progress
from deepspec_cli.main import main
from deepspec_cli.train import line, showing, warnings_as_lines

SMALL = [
    "decoder.latent=2",
    "decoder.templates=4",
    "decoder.trunk_width=8",
    "decoder.branch=[8]",
    "oracle.widths=[8]",
    "encoder.widths=[8]",
    "populations.block=256",
    "populations.blocks=1",
    'cameras.names=["pn"]',
    "run.log_every=2",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["train", *map(str, words)])


def small(*words):
    return ["--preset", "tiny", "--device", "cpu", *(w for text in SMALL for w in ("--set", text)), *words]


def progress(**changes):
    return Progress(
        **{"stage": "decoder", "step": 10, "steps": 40, "loss": 1.5, "speed": 1e3, "seconds_left": 90.0, **changes}
    )


def test_presets_are_listed(run):
    found = run("--list-presets")
    assert found.exit_code == 0
    for name, text in presets().items():
        assert name in found.output
        assert text in found.output


def test_the_configuration_that_is_shown_is_one_to_begin_from(run, tmp_path):
    shown = run("--preset", "tiny", "--set", "decoder.latent=3", "--steps", 7, "--show-config")
    assert shown.exit_code == 0
    (tmp_path / "mine.toml").write_text(shown.stdout)
    again = load_config(tmp_path / "mine.toml")
    assert (again.encoder.latent, again.stage["prior"].steps, again.stage["joint"].steps) == (3, 7, 20000)
    assert run("mine.toml", "--show-config").stdout == shown.stdout


def test_options_that_change_the_configuration(run, tmp_path):
    words = ["--stage", "encoder", "--rate", "1e-4", "--data", "xmm.h5", "--responses", "rsp", "--show-config"]
    (tmp_path / "mine.toml").write_text(run(*words).stdout)
    config = load_config(tmp_path / "mine.toml")
    assert (config.stage["encoder"].rate, config.stage["decoder"].rate) == (1e-4, 3e-3)
    assert (config.stage["encoder"].catalogue, config.stage["encoder"].real) == ("xmm.h5", 0.25)
    assert config.stage["joint"].catalogue == ""
    assert config.cameras.folder == "rsp"


MISTAKES = {
    "no folder": ([], "--out: no folder is given for weights and logs; add -o DIR."),
    "preset": (["--preset", "tinny", "-o", "x"], "unknown preset 'tinny'; did you mean tiny?"),
    "no such file": (["mine.tmol", "-o", "x"], "mine.tmol: cannot be read (No such file or directory)"),
    "both": (["mine.toml", "--preset", "tiny", "-o", "x"], "both a configuration file and --preset are given"),
    "unknown setting": (
        ["--set", "stage.decoder.bach=3", "-o", "x"],
        "unknown setting 'bach'; did you mean batch or beta?",
    ),
    "no setting": (["--set", "batch", "-o", "x"], "write --set section.key=value"),
    "negative steps": (["--steps", "-4", "-o", "x"], "--steps, [stage.decoder]: steps = -4 is impossible"),
    "rate": (["--rate", "0", "-o", "x"], "--rate, [stage.decoder]: rate = 0.0 is impossible"),
    "stage": (["--stage", "decode", "-o", "x"], "'decode' is not one of 'all', 'decoder'"),
    "stage too early": (["--stage", "prior", "-o", "x"], "run --stage decoder first"),
    "device": (["--device", "gpu", "-o", "x"], "--device: unknown device 'gpu'; give auto, cpu, cuda or cuda:N."),
    "seed": (["--seed", "-1", "-o", "x"], "--seed: -1 is no seed"),
    "threads": (["--threads", "0", "-o", "x"], "--threads: 0 cores are too few; give 1 or more."),
    "a file for a folder": (["-o", "file"], "file: is a file, not a folder"),
    "class": ([*small(), "--set", "populations.shares.sun=1", "-o", "x"], "sun"),
    "camera": (
        [*small(), "--stage", "decoder", "--set", 'stage.decoder.cameras=["pm"]', "-o", "x"],
        "there is no camera 'pm'; did you mean pn?",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(run, tmp_path, case):
    words, message = MISTAKES[case]
    (tmp_path / "file").write_text("")
    found = run(*words)
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert found.stdout == ""
    assert not list(tmp_path.rglob("*.h5"))


def test_a_gpu_that_is_not_there(run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = run("--preset", "tiny", "--device", "cuda", "-o", "x")
    assert found.exit_code == 2
    assert "use --device cpu" in found.stderr


def test_lines_in_a_pipe(capsys):
    line(progress())
    assert capsys.readouterr().err == ""
    figures = {f"figure {number}": float(number) for number in range(60)}
    line(progress(validated=True, validation=figures))
    said = capsys.readouterr().err
    assert (
        said == "decoder 10/40: loss 1.5, 1,000 spectra/s, figure 0 0, figure 1 1, figure 2 2, figure 3 3, 2 min left\n"
    )


def test_a_bar_on_a_terminal(monkeypatch):
    from tests.cli.test_options import Terminal

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with showing(quiet=False) as tell:
        tell(progress())
        tell(progress(step=40, validated=True, validation={"excess": 3.25}))
    assert "40/40" in sys.stderr.getvalue()
    assert "1,000 spectra/s, excess 3.25" in sys.stderr.getvalue()


def test_nothing_is_shown_when_quiet():
    with showing(quiet=True) as tell:
        assert tell is None


def test_warnings_are_lines(capsys):
    import warnings

    with warnings_as_lines():
        warnings.warn("goes on with other settings", DeepspecWarning, stacklevel=1)
    assert capsys.readouterr().err == "deepspec: warning: goes on with other settings\n"


@pytest.mark.slow
def test_three_stages_from_end_to_end(run, tmp_path):
    """A few steps of each stage; then nothing is lost, and nothing done twice."""
    made = run(*small("-o", "run", "--steps", 4))
    assert made.exit_code == 0, made.output
    assert made.stdout == "written: run/weights.h5\n"
    names = {f"{stage}{end}" for stage in ("decoder", "prior", "encoder") for end in (".h5", "-state.h5", ".csv")}
    assert {p.name for p in (tmp_path / "run").iterdir()} == names | {"weights.h5", "config.toml"}
    weights = read_weights(tmp_path / "run/weights.h5")
    assert None not in (weights.decoder, weights.flow, weights.oracle, weights.encoder)
    assert [weights.card["stages"][name]["steps"] for name in ("decoder", "prior", "encoder")] == [4, 4, 4]
    assert json.dumps(weights.card)
    for stage in ("decoder", "prior", "encoder"):
        rows = list(csv.DictReader((tmp_path / f"run/{stage}.csv").read_text().splitlines()))
        assert [row["step"] for row in rows] == ["2", "4"]

    refused = run(*small("-o", "run", "--steps", 4))
    assert refused.exit_code == 2
    assert "add --resume" in refused.stderr
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    again = run(*small("-o", "run", "--steps", 4, "--resume", "-q"))
    assert (again.exit_code, again.stdout) == (0, "")
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.slow
def test_the_joint_stage_alone_is_the_plain_autoencoder(run, tmp_path):
    made = run(*small("-o", "run", "--steps", 3, "--set", 'stages=["joint"]'))
    assert made.exit_code == 0, made.output
    weights = read_weights(tmp_path / "run/weights.h5")
    assert weights.encoder is not None
    assert weights.flow is None
    assert list(weights.card["stages"]) == ["joint"]
