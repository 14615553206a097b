"""The small observation on disk that the tests of reading start from."""

import pytest

from small_files import write_small


@pytest.fixture
def path(tmp_path):
    return write_small(tmp_path)
