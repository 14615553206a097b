"""Every benchmark runs, in a tiny setting, and its tables say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "evaluation": {"statistic and gradient, batch of 64"},
    "fit": {"16 starts (Sherpa: neldermead)"},
    "errors": {"profile intervals (Sherpa: conf)"},
    "loading": {"spectrum, response, background"},
    "scaling": {"batch of 8", "2 parameters: powerlaw"},
}


def run(folder: Path, *options: str) -> list[dict]:
    command = [sys.executable, ROOT / "benchmarks/run.py", "--quick", "--data", "none", "--out", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "benchmarks.json").read_text())


@pytest.mark.slow
def test_parts_within_one_process(tmp_path):
    page = tmp_path / "page.md"
    found = run(tmp_path / "out", "--sections", *SECTIONS, "--page", str(page))
    for section, expected in SECTIONS.items():
        rows = [row for row in found["rows"] if row["section"] == section]
        assert expected <= {row["what"] for row in rows}
        assert all(row["ours"] > 0 for row in rows)
        assert all(row["sherpa"] > 0 for row in rows if section != "scaling")
        assert f"## {section}" in page.read_text()
    assert found["machine"]["threads"] == 1
    assert set(found["machine"]["versions"]) >= {"deepspec", "torch", "sherpa"}


@pytest.mark.slow
def test_whole_commands(tmp_path):
    rows = {row["what"]: row for row in run(tmp_path, "--sections", "commands")["rows"]}
    assert rows["fit, covariance, plots: peak memory"]["ours"] > 20.0
    assert rows["deepspec --help"]["ours"] < rows["fit, covariance, plots: wall"]["ours"]


def test_a_command_that_fails_is_not_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import clock

    with pytest.raises(RuntimeError, match="ended with 3"):
        clock.process([sys.executable, "-c", "raise SystemExit(3)"], repeats=1)


def test_memory_of_a_process_is_that_of_the_process(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import clock

    small, large = (clock.process([sys.executable, "-c", f"b'x' * {n}"], repeats=1) for n in (1, 100_000_000))
    assert 80 < large.memory - small.memory < 130


def test_page_of_the_documentation_names_its_command():
    assert "benchmarks/run.py --page docs/benchmarks.md" in (ROOT / "docs/benchmarks.md").read_text()
