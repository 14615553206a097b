"""`import deepspec` and `deepspec --help` load nothing heavy; benchmarks/ measures how long they take."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "scipy", "sherpa", "astropy", "matplotlib", "h5py"]
REPORT = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"


def loaded_by(code: str) -> set[str]:
    """Top-level modules present after `code` ran in a fresh process."""
    run = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True)
    return set(json.loads(run.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import deepspec", id="import"),
        pytest.param("import deepspec; dir(deepspec); deepspec.__version__", id="dir"),
        pytest.param(
            "from click.testing import CliRunner\nfrom deepspec_cli.main import main\n"
            "result = CliRunner().invoke(main, ['--help'])\nassert result.exit_code == 0, result.output",
            id="help",
        ),
        pytest.param(
            "from click.testing import CliRunner\nfrom deepspec_cli.main import main\n"
            "result = CliRunner().invoke(main, ['--version'])\nassert result.exit_code == 0, result.output",
            id="version",
        ),
    ],
)
def test_nothing_heavy_is_loaded(code):
    loaded = loaded_by(code)
    assert "deepspec" in loaded
    assert not loaded & set(HEAVY)


def test_import_changes_no_global_state():
    code = (
        "import logging, warnings, random\n"
        "before = (random.getstate(), list(warnings.filters), logging.getLogger().level)\n"
        "import deepspec\n"
        "assert before == (random.getstate(), list(warnings.filters), logging.getLogger().level)"
    )
    assert "deepspec" in loaded_by(code)
