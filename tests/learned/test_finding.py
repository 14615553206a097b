"""Names of weights: the user's folder, the package, paths."""

from __future__ import annotations

import pytest

from deepspec.errors import UserError
from deepspec.learned import finding
from deepspec.learned.finding import find_weights, list_weights, user_folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    own, package = tmp_path / "own", tmp_path / "package"
    own.mkdir()
    package.mkdir()
    monkeypatch.setenv("DEEPSPEC_WEIGHTS", str(own))
    monkeypatch.setattr(finding, "package_folder", lambda: package)
    return own, package


def test_the_default_is_the_one_that_ships(folders):
    own, package = folders
    with pytest.raises(UserError, match=r"has no default weights.*deepspec train"):
        find_weights()
    (own / "default.h5").touch()
    (package / "default.h5").touch()
    assert find_weights() == find_weights("default") == package / "default.h5"


def test_names_are_looked_up_in_the_users_folder_first(folders):
    own, package = folders
    for folder in folders:
        (folder / "mine.h5").touch()
    assert find_weights("mine") == own / "mine.h5"
    (own / "mine.h5").unlink()
    assert find_weights("mine") == package / "mine.h5"
    with pytest.raises(UserError, match="no weights called 'mina'; did you mean mine"):
        find_weights("mina")


def test_a_path_is_taken_as_it_is(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.h5").touch()
    (tmp_path / "odd").touch()
    assert find_weights("here.h5").samefile(tmp_path / "here.h5")
    assert find_weights("./odd").samefile(tmp_path / "odd")
    with pytest.raises(UserError, match=r"there\.h5: there is no such file"):
        find_weights("there.h5")


def test_the_list_begins_with_the_default(folders):
    own, package = folders
    for path in (own / "b.h5", own / "a.h5", package / "default.h5", package / "a.h5", own / "default.h5"):
        path.touch()
    assert [(p.name, p.own) for p in list_weights()] == [("default", False), ("a", True), ("b", True)]


def test_the_users_folder_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv("DEEPSPEC_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert user_folder() == tmp_path / "deepspec" / "weights"
