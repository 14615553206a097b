"""The wheel and the sdist hold everything, and work from an environment that has never seen the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import deepspec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "demo-output", "_build", "out")


def test_every_folder_with_code_is_in_the_package_list():
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "deepspec").rglob("*.py")]
    expected = {".".join(folder.parts) for folder in folders} | {"deepspec_cli", "sherpa_plugin"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_every_dependency_is_pinned_in_the_constraints():
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)]:
        assert requirement.split(">=")[0].lower() in pinned, f"{requirement} has no line in constraints.txt"


def test_this_checkout_is_installed_with_its_command():
    import deepspec_cli

    assert Path(deepspec_cli.__file__).parent == ROOT / "cli"
    assert Path(deepspec.__file__).parent == ROOT / "deepspec"


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A wheel of the tree, an sdist of the tree, and a wheel of the sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=LEFT_OUT)
    shutil.copytree(ROOT / ".ci", tree / ".ci")
    build = "from setuptools import build_meta as b; import sys; print(b.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", build, folder, cwd=tree)
    sdist = next(folder.glob("*.tar.gz"))
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    run(*wheel, folder / "tree-wheel", tree)
    run(*wheel, folder / "sdist-wheel", sdist)
    return {
        "sdist": sdist,
        "tree": next((folder / "tree-wheel").glob("*.whl")),
        "from sdist": next((folder / "sdist-wheel").glob("*.whl")),
    }


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_wheel_holds_code_tables_weights_and_licence(distributions):
    names = contents(distributions["tree"])
    for path in [
        *(ROOT / "deepspec").rglob("*.py"),
        *(ROOT / "deepspec/tables").glob("*.*"),
        *(ROOT / "deepspec/training/presets").glob("*.toml"),
        ROOT / "deepspec/weights/default.h5",
        ROOT / "deepspec/py.typed",
    ]:
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "cli").glob("*.py"):
        assert f"deepspec_cli/{path.name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("cli/", "tests/", "data/"))]


@pytest.mark.slow
def test_sdist_makes_the_same_wheel_and_holds_what_its_tests_need(distributions):
    assert contents(distributions["from sdist"]) == contents(distributions["tree"])
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", "scripts/setup.sh", ".ci/run", "docs/architecture.md"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")} <= names
    assert {f"data/{path.name}" for path in (ROOT / "data").glob("*.*")} <= names


@pytest.mark.slow
@pytest.mark.parametrize("which", ["tree", "from sdist"])
def test_installed_wheel_works_without_the_checkout(distributions, which, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env/bin/python"
    # The dependencies are lent by path; a checkout installed in that folder as editable is not seen this way.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", distributions[which])

    clean = {"env": {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "cwd": tmp_path}
    where = run(python, "-c", "import deepspec, deepspec_cli; print(deepspec.__file__, deepspec_cli.__file__)", **clean)
    assert where.split() == [str(site / "deepspec/__init__.py"), str(site / "deepspec_cli/__init__.py")]
    assert deepspec.__version__ in run(tmp_path / "env/bin/deepspec", "--version", **clean)
    code = (
        "import torch; from deepspec.models import COMPONENTS; from deepspec.models.base import Grid\n"
        "factor = COMPONENTS['tbabs']().evaluate(Grid([0.5, 1.0, 2.0]), nH=torch.tensor([1.0], dtype=torch.float64))\n"
        "assert 0 < float(factor[0]) < float(factor[1]) < 1, factor\n"
        "learned = COMPONENTS['deepspec']()\n"
        "values = {p.name: torch.zeros(1, dtype=torch.float64) for p in learned.parameters}\n"
        "assert (learned.evaluate(Grid([0.5, 1.0, 2.0]), **values) > 0).all()"
    )
    run(python, "-c", code, **clean)


def test_setup_names_the_missing_debian_packages(tmp_path):
    """A user who is not root is told what to type before anything is installed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "g++", "python3"):
        (tools / name).symlink_to(shutil.which(name) if name != "python3" else sys.executable)
    (tools / "id").write_text(f"#!{shutil.which('bash')}\necho 1000\n")
    (tools / "id").chmod(0o755)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        [tools / "bash", tmp_path / "scripts/setup.sh"], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sudo apt-get install bison flex pkg-config libfftw3-dev" in done.stderr
    assert not (tmp_path / ".venv").exists()
