"""`deepspec tables`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from deepspec_cli.main import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_TABLES", str(tmp_path / "tables"))
    for name in ("HEADAS", "XSPEC_MDATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: CliRunner().invoke(main, ["tables", *map(str, words)])


def test_help_teaches(run):
    for words in ([], ["build"], ["info"], ["list"]):
        assert run(*words, "--help").exit_code == 0
    assert "deepspec tables build apec --from" in run("build", "--help").output


def test_list_says_what_there_is(run):
    found = run("list")
    assert found.exit_code == 0
    assert "mekal.h5" in found.output
    assert "deepspec tables build apec" in found.output


def test_info_describes(run):
    found = run("info", "mekal")
    assert found.exit_code == 0
    assert "XSPEC 12.15.0" in found.output
    assert "0.05 to 100" in found.output
    missing = run("info", "apec")
    assert missing.exit_code == 2
    assert "or use mekal" in missing.output


def test_build_without_files_is_one_sentence(run, tmp_path):
    for words, word in (
        ([], "HEADAS"),
        (["--from", tmp_path], "holds no pair"),
        (["--from", tmp_path / "x"], "not a folder"),
    ):
        found = run("build", "apec", *words)
        assert found.exit_code == 2
        assert word in found.output
        assert len(found.output.strip().splitlines()) == 1


def test_build_makes_a_table_that_list_and_info_know(run, tmp_path):
    from tests.models.test_atomdb import write_atomdb

    write_atomdb(tmp_path)
    found = run("build", "apec", "--from", tmp_path, "--spacing", "10")
    assert found.exit_code == 0, found.output
    assert "3 temperatures" in found.output
    assert str(tmp_path / "tables" / "apec.h5") in run("list").output
    assert "apec_v3.1.2_coco.fits" in run("info", "apec").output


def test_folders_come_from_the_environment(run, tmp_path, monkeypatch):
    from deepspec_cli.tables import default_folders

    monkeypatch.setenv("HEADAS", str(tmp_path / "x86"))
    (tmp_path / "spectral" / "modelData").mkdir(parents=True)
    assert default_folders() == [tmp_path / "spectral" / "modelData"]
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(tmp_path))
    assert default_folders() == [tmp_path]
