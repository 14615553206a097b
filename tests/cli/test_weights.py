"""`deepspec weights`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from deepspec_cli.main import main
from tests.learned.toy_weights import toy_weights


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_WEIGHTS", str(tmp_path))
    return lambda *words: CliRunner().invoke(main, ["weights", *map(str, words)])


def test_help_teaches(run):
    for words in ([], ["list"], ["info"]):
        assert run(*words, "--help").exit_code == 0
    assert "run3/weights.h5" in run("info", "--help").output


def test_the_users_weights_are_listed_and_described(run, tmp_path):
    path = toy_weights(tmp_path)
    (tmp_path / "spoilt.h5").write_text("no")
    listed = run("list")
    assert listed.exit_code == 0
    assert "random weights for tests" in listed.output
    assert "no readable file of weights" in " ".join(listed.output.split())  # the column may break it
    found = {item["name"]: item for item in json.loads(run("list", "--json").output)["weights"]}
    assert found["toy"]["latent"] == 3
    assert "wrong" in found["spoilt"]
    details = run("info", "toy")
    assert details.exit_code == 0, details.output
    for word in ("0.3-10 keV", "tests/learned/toy_weights.py", found["toy"]["sha256"]):
        assert word in details.output
    plain = json.loads(run("info", path, "--json").output)
    assert plain["card"]["name"] == "toy"
    assert plain["networks"]["decoder"]["templates"] == 8


@pytest.mark.parametrize("words", [["info", "none"], ["info", "none.h5"], ["info", __file__]])
def test_what_is_no_weights_is_one_sentence(run, words):
    found = run(*words)
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1
