"""Every test of XSPEC's library keeps its own cache of trials and leaves the environment as it was."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def trial_cache(tmp_path_factory):
    """One cache folder for the session, so that each model is tried once."""
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, trial_cache):
    """Never read or write the user's cache."""
    monkeypatch.setenv("DEEPSPEC_CACHE_DIR", str(trial_cache))


@pytest.fixture
def xspec_library():
    """Skips where XSPEC's library is not installed."""
    pytest.importorskip("xspectrampoline", reason="XSPEC's models are not installed (pip install deepspec[xspec])")
