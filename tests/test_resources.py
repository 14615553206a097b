"""Shipped tables: recorded, intact, and refused in a sentence where not."""

from __future__ import annotations

import pytest

from deepspec import resources
from deepspec.errors import UserError


def test_every_table_is_recorded_and_intact():
    recorded = resources.read_checksums(resources.folder())
    present = {path.name for path in resources.folder().iterdir() if path.is_file()} - {resources.CHECKSUMS}
    assert set(recorded) == present
    for name in recorded:
        assert resources.table_path(name).is_file()


def test_a_table_opens():
    with resources.open_table("absorption.h5") as table:
        assert table["tbabs/energy"].shape[0] > 1000
        assert table.mode == "r"


def test_an_unknown_table_is_named():
    with pytest.raises(UserError, match=r"no shipped table is called 'nothing.h5'; install deepspec again"):
        resources.table_path("nothing.h5")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "one.h5").write_bytes(b"content")
    resources.write_checksums(tmp_path)
    return tmp_path


def test_what_was_recorded_is_found(folder):
    assert resources.checked(folder / "one.h5") == folder / "one.h5"
    assert (folder / resources.CHECKSUMS).read_text().endswith("  one.h5\n")


def test_a_damaged_table_is_refused(folder):
    (folder / "one.h5").write_bytes(b"contemt")
    with pytest.raises(UserError, match=r"one.h5: a table of the package is damaged"):
        resources.checked(folder / "one.h5")


def test_a_missing_table_is_refused(folder):
    (folder / "one.h5").unlink()
    with pytest.raises(UserError, match=r"one.h5: a table of the package is missing"):
        resources.checked(folder / "one.h5")


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="the list of shipped tables is missing"):
        resources.checked(tmp_path / "one.h5")
