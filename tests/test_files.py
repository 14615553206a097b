"""Files written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from deepspec.errors import UserError
from deepspec.files import sha256, write_beside


def test_content_arrives_under_its_name(tmp_path):
    with write_beside(tmp_path / "result.json") as temporary:
        temporary.write_text("{}")
        assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "result.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 1


def test_temporary_name_keeps_the_ending_that_chooses_a_format(tmp_path):
    with write_beside(tmp_path / "fake.pha.gz") as temporary:
        assert temporary.name.endswith(".pha.gz")
        temporary.write_bytes(b"")


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_old_file_survives_whatever_stops_the_writer(tmp_path, stop):
    path = tmp_path / "result.json"
    path.write_text("old")

    def write():
        with write_beside(path) as temporary:
            temporary.write_text("half")
            raise stop

    with pytest.raises(stop):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "may not be written"), (errno.EACCES, "may not be written")],
)
def test_full_disk_and_forbidden_folder_are_one_sentence(tmp_path, number, words):
    path = tmp_path / "result.json"
    with pytest.raises(UserError, match=words) as caught, write_beside(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_device_is_one_sentence(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with pytest.raises(UserError, match="no space left"), write_beside(tmp_path / "a"), open("/dev/full", "w") as full:
        full.write("x" * 100_000)


def test_missing_folder_names_the_folder_to_make(tmp_path):
    with pytest.raises(UserError, match="does not exist") as caught, write_beside(tmp_path / "no" / "a.json"):
        pass
    assert "mkdir" in caught.value.remedy


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder"), write_beside(tmp_path):
        pass


def test_mode_is_that_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    with write_beside(tmp_path / "ours") as temporary:
        temporary.write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_hash_is_sha256_of_the_content(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_hash_of_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        sha256(tmp_path / "missing")
