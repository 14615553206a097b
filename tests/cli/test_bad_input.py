"""Mistakes in options and models: one line that names the option and the remedy, status 2, nothing written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from deepspec_cli.main import main

DATA = Path(__file__).resolve().parents[2] / "data"
FAINT = str(DATA / "faint_a.pha")

#: What is typed after ``deepspec fit`` -> what must be said.
MISTAKES = {
    "no file": (["-m", "po"], "there is no spectrum to fit; name at least one PHA file"),
    "no model": ([FAINT], "--model: there is no model; give one"),
    "file missing": (["nowhere.pha", "-m", "po"], "nowhere.pha: no such file"),
    "unknown component": ([FAINT, "-m", "tbabs*powerlow"], "unknown component 'powerlow'; nearest names: .*powerlaw"),
    "bracket open": ([FAINT, "-m", "tbabs*(po+bb"], "an opening bracket is never closed"),
    "bracket closed": ([FAINT, "-m", "tbabs*po+bb)"], "a closing bracket has no opening one"),
    "additive times additive": (
        [FAINT, "-m", "po*bb"],
        "two additive components cannot be multiplied: powerlaw and bbody",
    ),
    "factor alone": ([FAINT, "-m", "tbabs"], "a model needs a source of photons; write tbabs.powerlaw"),
    "factor plus": ([FAINT, "-m", "tbabs+po"], "only additive components can be added"),
    "empty model": ([FAINT, "-m", " "], "the model is empty"),
    "code as model": ([FAINT, "-m", "__import__('os')"], "has no meaning here|unknown component"),
    "set unknown": ([FAINT, "-m", "po", "--set", "PhoIndx=2"], "--set PhoIndx=2: unknown parameter .* did you mean"),
    "set ambiguous": ([FAINT, "-m", "po+po", "--set", "norm=2"], "may mean powerlaw.norm or powerlaw_2.norm"),
    "set outside": ([FAINT, "-m", "po", "--set", "PhoIndex=99"], "--set PhoIndex=99: .* stay within -3 and 10"),
    "fix unknown": ([FAINT, "-m", "po", "--fix", "nH=0.1"], "--fix nH=0.1: unknown parameter"),
    "fix outside": ([FAINT, "-m", "po", "--fix", "norm=-1"], "--fix norm=-1: .* outside its limits"),
    "link unknown": ([FAINT, "-m", "po", "--link", "PhoIndex = foo"], "--link PhoIndex=foo: unknown parameter 'foo'"),
    "link circular": (
        [FAINT, "-m", "po+po", "--link", "powerlaw.norm=powerlaw_2.norm", "--link", "powerlaw_2.norm=powerlaw.norm"],
        "run in a circle",
    ),
    "link to itself": ([FAINT, "-m", "po", "--link", "PhoIndex=PhoIndex"], "run in a circle"),
    "link outside": (
        [FAINT, "-m", "po", "--link", "PhoIndex=norm+50"],
        "puts powerlaw.PhoIndex at .*, outside its limits",
    ),
    "switch thawed": ([FAINT, "-m", "mekal", "--thaw", "switch"], "is a switch and cannot be fitted"),
    "prior on frozen": (
        [FAINT, "-m", "po", "--fix", "norm", "--prior", "norm=normal(0,1)"],
        "has a prior but is not free",
    ),
    "prior unreadable": ([FAINT, "-m", "po", "--prior", "norm=flat"], "this is no prior; write normal"),
    "notice outside": (
        [FAINT, "-m", "po", "--notice", "100:200"],
        r"faint_a.pha: no channel lies in 100:200 keV; choose within",
    ),
    "notice reversed": ([FAINT, "-m", "po", "--notice", "7:0.5"], "--notice: the range 7:0.5 is empty or reversed"),
    "notice words": ([FAINT, "-m", "po", "--notice", "soft"], "--notice: 'soft' is not a range"),
    "all ignored": ([FAINT, "-m", "po", "--ignore", "0:20"], "all channels are ignored"),
    "one channel": ([FAINT, "-m", "po", "--notice", "1.50:1.51", "--group", "none"], "only one bin is noticed"),
    "file number": ([FAINT, "-m", "po", "--notice", "2=1:5"], "there is no file 2"),
    "grouping": ([FAINT, "-m", "po", "--group", "optimum"], "unknown grouping 'optimum'; did you mean optimal"),
    "grouping number": ([FAINT, "-m", "po", "--group", "min:-3"], "needs a positive number"),
    "no groups in file": ([FAINT, "-m", "po", "--group", "file"], "has no GROUPING column"),
    "statistic": ([FAINT, "-m", "po", "--stat", "cstats"], "--stat: unknown statistic 'cstats'; did you mean cstat"),
    "statistic without background": (
        [FAINT, "-m", "po", "--bkg", "none", "--stat", "wstat"],
        "wstat needs a background",
    ),
    "arf missing": ([FAINT, "-m", "po", "--arf", "no.arf"], "no.arf: no such file"),
    "rmf missing": ([FAINT, "-m", "po", "--rmf", "no.rmf"], "no.rmf: no such file"),
    "rmf of another camera": ([FAINT, "-m", "po", "--rmf", str(DATA / "camera_b.rmf.gz")], "channels"),
    "no response": ([FAINT, "-m", "po", "--rmf", "none"], "no response"),
    "two arfs": ([FAINT, "-m", "po", "--arf", "a", "--arf", "b"], "--arf: 2 files for one spectrum"),
    "not a spectrum": ([str(DATA / "camera_a.arf"), "-m", "po"], "not a spectrum.*; it is an effective area"),
    "not FITS": ([str(DATA / "README.md"), "-m", "po"], "README.md: "),
    "flux band": ([FAINT, "-m", "po", "--flux", "10:2"], "--flux: the range 10:2 is empty or reversed"),
    "redshift": ([FAINT, "-m", "po", "--redshift", "-1"], "--redshift: a redshift of -1 gives no luminosity"),
    "abundances": ([FAINT, "-m", "tbabs*po", "--abund", "solar"], "--abund solar: unknown abundance table"),
    "grid": ([FAINT, "-m", "po", "--steppar", "PhoIndex=1:2"], "--steppar PhoIndex=1:2: this is no grid; write"),
    "grid outside": ([FAINT, "-m", "po", "--steppar", "PhoIndex=1:20:5"], "leaves its limits"),
    "simulations": ([FAINT, "-m", "po", "--goodness", "-1"], "--goodness: -1 is too small"),
    "config missing": (
        ["--config", "nowhere.json"],
        "nowhere.json: no such file; give the result.json of an earlier fit",
    ),
    "config is no result": (["--config", str(DATA / "README.md")], "README.md: this is no readable JSON file"),
    "out below a file": ([FAINT, "-m", "po", "--out", str(DATA / "README.md" / "x")], "is a file, not a folder"),
}


def said(arguments, folder):
    """What a mistaken command says; it must be one line, and nothing may be written."""
    result = CliRunner().invoke(
        main, ["fit", *arguments, "--starts", "1", *([] if "--out" in arguments else ["--out", "out"])]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("deepspec: ")
    assert result.stderr.count("\n") == 1
    assert list(folder.iterdir()) == []
    return result.stderr


@pytest.mark.parametrize("case", MISTAKES)
def test_one_line_and_nothing_written(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, sentence = MISTAKES[case]
    line = said(arguments, tmp_path)
    assert re.search(sentence, line), line


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_fit(tmp_path, monkeypatch):
    import tempfile

    from deepspec import api

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(api, "fit", lambda *_, **__: pytest.fail("the fit was begun"))
    line = said([FAINT, "-m", "po", "--out", str(tmp_path / "out")], tmp_path)
    assert "--out" in line
    assert "may not be written to" in line


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that takes no files")
def test_a_file_system_that_takes_no_files(tmp_path):
    assert "may not be written to" in said([FAINT, "-m", "po", "--out", "/proc/deepspec"], tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(self, path, **_):
        Path(path).write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    result = CliRunner().invoke(main, ["fit", FAINT, "-m", "powerlaw", "--starts", "1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "no space left on the disk; free some space" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["result.json"]


def test_an_interruption_while_saving_leaves_nothing_half_written(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def interrupted(self, path, **_):
        Path(path).write_bytes(b"half a pict")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    result = CliRunner().invoke(main, ["fit", FAINT, "-m", "powerlaw", "--starts", "1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 130
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["result.json"]
