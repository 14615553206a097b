"""What the documentation shows is run: Python blocks, console blocks, and the build itself.

Blocks of one page share a folder (with ``data/`` in it) and, for Python, a namespace, as a reader who types along would
have. A block that cannot be run here (a user's own files, output alone) is fenced as ``text``.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)])
FENCE = re.compile(r"^```(?P<language>[a-z]*)[^\n]*\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of each fenced block in `language`."""
    text = page.read_text()
    return [
        (text.count("\n", 0, m.start("body")), m["body"]) for m in FENCE.finditer(text) if m["language"] == language
    ]


def commands(body: str) -> list[list[str]]:
    """The `deepspec` commands after each prompt of a console block."""
    joined = body.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    return [
        parts[1:] for parts in (shlex.split(line, comments=True) for line in lines) if parts and parts[0] == "deepspec"
    ]


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def beside_data(tmp_path, monkeypatch):
    """An empty folder with the bundled observations, as in a fresh checkout."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", with_blocks("python"), ids=page_name)
def test_python_blocks_run(page, beside_data):
    namespace = {"__name__": "__main__"}
    for line, body in blocks(page, "python"):
        # The empty lines make a traceback point at the line of the page.
        exec(compile("\n" * line + body, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", with_blocks("console"), ids=page_name)
def test_console_blocks_run(page, beside_data):
    from click.testing import CliRunner

    from deepspec_cli.main import main

    for line, body in blocks(page, "console"):
        for arguments in commands(body):
            result = CliRunner().invoke(main, arguments, prog_name="deepspec")
            said = f"{page_name(page)}:{line}: deepspec {shlex.join(arguments)}\n{result.output}"
            assert result.exit_code == 0, said + repr(result.exception)


def test_no_block_has_a_language_that_nobody_runs():
    known = {"", "python", "console", "text", "json", "toml", "mermaid"}
    for page in PAGES:
        found = {match["language"] for match in FENCE.finditer(page.read_text())}
        assert found <= known, f"{page_name(page)} has blocks in {found - known}: write console, python or text"


def test_every_command_has_a_page():
    from deepspec_cli.main import main

    for name in main.list_commands(None):
        page = ROOT / "docs/commands" / f"{name}.md"
        assert f"<!-- begin command {name} -->" in page.read_text()


def test_every_field_of_a_result_is_explained():
    from dataclasses import fields

    from deepspec import results

    text = (ROOT / "docs/results.md").read_text()
    for part in (
        results.FitResult,
        results.StatisticResult,
        results.ParameterResult,
        results.FluxResult,
        results.DataResult,
    ):
        for field in fields(part):
            assert f"`{field.name}`" in text, f"{part.__name__}.{field.name} is not in docs/results.md"


def test_links_lead_somewhere():
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page_name(page)} links to {target}"


def test_generated_parts_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx is in the extra deepspec[docs]")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "html"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html/quickstart.html").is_file()
