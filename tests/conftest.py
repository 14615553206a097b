"""Shared fixtures: the folder of real observations, thread limits, hypothesis profiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path | None:
    """The folder of real observations: DEEPSPEC_SHARED_DATA, or ``../shared/data`` beside the checkout."""
    named = os.environ.get("DEEPSPEC_SHARED_DATA")
    for folder in [Path(named)] if named else [ROOT.parent / "shared" / "data"]:
        if (folder / "README.md").is_file():
            return folder
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real spectra, reference values and plasma tables; they are not part of the project."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the folder of real observations (../shared/data or DEEPSPEC_SHARED_DATA) is absent")
    return folder


def pytest_collection_modifyitems(items):
    """Whatever uses the shared folder carries the mark `data`."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
