"""Configurations: presets, files, single settings, and what is refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.training import STAGES
from deepspec.training.config import (
    NETWORKS,
    SECTIONS,
    STAGE_SECTIONS,
    TrainConfig,
    differences,
    load_config,
    parse_change,
    presets,
)
from deepspec.training.sections import CameraConfig, PopulationConfig, StageConfig


def write(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_the_tables_name_the_same_stages():
    assert list(STAGE_SECTIONS) == list(STAGES)
    assert set(TrainConfig().as_dict()) == {"stages", "stage", *SECTIONS, *NETWORKS}


@pytest.mark.parametrize("name", presets())
def test_presets_load_and_come_back(name):
    config = load_config(preset=name)
    assert TrainConfig.from_dict(tomllib.loads(config.as_toml())) == config
    assert len(presets()[name]) > 20, "its first line says what it is for"


def test_the_recipe_is_the_default():
    """Values of the recipe that the design fixed by experiment."""
    config = TrainConfig()
    decoder, stage = config.decoder, config.stage["decoder"]
    assert (decoder.latent, decoder.templates, decoder.trunk_width, decoder.trunk_layers) == (12, 64, 128, 3)
    assert (stage.rate, stage.batch, stage.beta, stage.beta_hold, stage.beta_full) == (3e-3, 256, 0.02, 0.4, 0.75)
    assert (stage.counts, stage.knee, stage.unabsorbed, stage.ideal) == ((1e3, 3e5), 100.0, 0.5, 0.1)
    assert (config.optimiser.clip, config.optimiser.average) == (30.0, 0.998)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    config = load_config(write(tmp_path, "[stage.decoder]\nrate = 1\ncounts = [10, 20]\n[decoder]\nbranch = [7]\n"))
    assert differences(TrainConfig().as_dict(), config.as_dict()) == {
        "decoder.branch": ([192, 192], [7]),
        "stage.decoder.counts": ([1e3, 3e5], [10, 20]),
        "stage.decoder.rate": (3e-3, 1.0),
    }
    assert isinstance(config.stage["decoder"].rate, float)
    assert config.decoder.branch == (7,)


def test_networks_share_the_latent_dimension():
    config = TrainConfig.from_dict({"decoder": {"latent": 5}})
    assert {getattr(config, name).latent for name in NETWORKS} == {5}
    again = config.with_changes({"decoder": {"latent": 6}})
    assert {getattr(again, name).latent for name in NETWORKS} == {6}


def test_single_settings_as_typed(tmp_path):
    changes = [
        "stage.decoder.batch=64",
        "run.precision=bfloat16",
        "run.compile=true",
        'cameras.names=["pn"]',
        "stage.joint.rate=1e-5",
    ]
    config = load_config(preset="tiny", changes=changes)
    assert config.stage["decoder"].batch == 64
    assert config.stage["joint"].rate == 1e-5
    assert (config.run.precision, config.run.compile, config.cameras.names) == ("bfloat16", True, ("pn",))
    assert config.digest() != load_config(preset="tiny").digest()
    assert config.digest() == load_config(preset="tiny", changes=changes).digest()


def test_shares_of_classes_are_free_names():
    config = TrainConfig.from_dict({"populations": {"shares": {"star": 2, "agn": 0.5}}})
    assert config.populations.stream()["shares"] == {"star": 2, "agn": 0.5}
    assert TrainConfig.from_dict(tomllib.loads(config.as_toml())) == config
    assert PopulationConfig().stream()["shares"] is None


@settings(max_examples=30)
@given(st.text(), st.floats(0, 1, exclude_max=True), st.integers(1, 2**62))
def test_any_value_survives_the_file(text, tilt, steps):
    config = TrainConfig.from_dict({"cameras": {"folder": text, "tilt": tilt}, "stage": {"prior": {"steps": steps}}})
    assert TrainConfig.from_dict(tomllib.loads(config.as_toml())) == config


REFUSED = {
    "unknown section": ("[decodr]\nlatent = 3", r"mine.toml: unknown section 'decodr'; did you mean decoder"),
    "unknown name": ("[decoder]\nlatnet = 3", r"mine.toml, \[decoder\]: unknown setting 'latnet'; did you mean latent"),
    "unknown name of a stage": ("[stage.prior]\nbach = 3", r"mine.toml, \[stage.prior\]: .*did you mean batch"),
    "unknown stage": ("[stage.decode]\nbatch = 3", r"unknown stage 'decode'; did you mean decoder"),
    "no section": ("decoder = 3", r"decoder = 3 is not a section"),
    "no section of a stage": ("stage.decoder = 3", r"stage.decoder = 3 is not a section"),
    "no list": ('stages = "decoder"', r"is not a list"),
    "latent 0": ("[decoder]\nlatent = 0", r"\[decoder\]: latent = 0 is impossible"),
    "negative steps": (
        "[stage.encoder]\nsteps = -1",
        r"\[stage.encoder\]: steps = -1 is impossible; steps must be 1 or more",
    ),
    "steps no number": ('[stage.encoder]\nsteps = "many"', r"steps = 'many' is not a int"),
    "rate 0": ("[stage.decoder]\nrate = 0", r"rate = 0.0 is impossible"),
    "rate nan": ("[stage.decoder]\nrate = nan", r"rate = nan is impossible"),
    "rate infinite": ("[stage.decoder]\nrate = inf", r"rate = inf is impossible"),
    "warm-up": ("[stage.decoder]\nwarm_up = 1", r"warm_up = 1.0 is impossible"),
    "beta": ("[stage.decoder]\nbeta_hold = 0.8", r"beta_full = 0.75 is impossible; beta_full must be beta_hold to 1"),
    "counts": ("[stage.decoder]\ncounts = [5, 1]", r"counts = \[5, 1\] is impossible"),
    "counts of text": ('[stage.decoder]\ncounts = ["a", "b"]', r"counts = \['a', 'b'\] is impossible"),
    "betas": ("[optimiser]\nbetas = [0.9]", r"betas = \[0.9\] is impossible"),
    "clip": ("[optimiser]\nclip = 0", r"clip = 0.0 is impossible"),
    "precision": ('[run]\nprecision = "half"', r"precision = 'half' is impossible"),
    "compile": ("[run]\ncompile = 1", r"compile = 1 is not a bool"),
    "minutes": ("[run]\nminutes = -1", r"minutes = -1.0 is impossible"),
    "minutes nan": ("[run]\nminutes = nan", r"minutes = nan is impossible"),
    "share": ("[populations.shares]\nstar = -1", r"\[populations\]: shares.star = -1 is impossible"),
    "cameras": ("[cameras]\nnames = []", r"names = \[\] is impossible"),
    "another latent": ("[encoder]\nlatent = 3", r"\[encoder\]: latent = 3 but the decoder has 12"),
    "stages out of order": (
        'stages = ["prior", "decoder"]',
        r"cannot be run in this order; write them in the order decoder",
    ),
    "no stages": ("stages = []", r"cannot be run in this order"),
    "no such stage": ('stages = ["decoder", "flow"]', r"stages: unknown stage 'flow'"),
    "prior first": ('stages = ["prior"]', r"beginning with decoder or with joint alone"),
    "not TOML": ("latent: 3", r"mine.toml: is not valid TOML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_named_with_its_place(tmp_path, case):
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "mine.toml" in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "=3", "decoder.latent", "decoder.latent=", "decoder..latent=3", ".=3"])
def test_a_change_that_is_none(text):
    with pytest.raises(UserError, match=r"section\.key=value"):
        parse_change(text)


@pytest.mark.parametrize(
    "text", ["latent=3", "decoder=3", "stage.decoder=3", "stage=3", "decoder.latent.x=3", "stages=decoder"]
)
def test_a_change_of_no_setting(text):
    with pytest.raises(UserError, match=f"--set {text}"):
        load_config(changes=[text])


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"No such file.*--preset"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="is not a text file"):
        load_config(tmp_path / "binary.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path)
    with pytest.raises(UserError, match="both"):
        load_config(tmp_path / "mine.toml", "tiny")
    with pytest.raises(UserError, match="unknown preset 'tinny'; did you mean tiny"):
        load_config(preset="tinny")


def test_sections_check_themselves():
    with pytest.raises(UserError, match="batch = 0"):
        StageConfig(batch=0)
    with pytest.raises(UserError, match="tilt"):
        CameraConfig(tilt=1.0)


def test_the_example_of_the_documentation_is_a_configuration(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/training.md").read_text()
    (text,) = re.findall(r"(?ms)^```toml\n(.*?)^```", page)
    config = load_config(write(tmp_path, text))
    assert config.encoder.latent == 8
    assert config.populations.shares == {"star": 2, "plain": 1}
