"""Names are found in any case, loaded when asked for, and near misses are named."""

import pytest

from deepspec.errors import UserError
from deepspec.registry import Registry, nearest

TABLE = Registry("thing", {"sqrt": "math:sqrt", "Floor": "math:floor"}, {"root": "sqrt"})


def test_lookup_by_any_case_and_alias():
    import math

    assert TABLE["SQRT"] is math.sqrt
    assert TABLE["root"] is math.sqrt
    assert TABLE["floor"] is math.floor
    assert "FLOOR" in TABLE
    assert "ceil" not in TABLE
    assert list(TABLE) == ["sqrt", "Floor"]
    assert len(TABLE) == 2


def test_unknown_names_get_a_hint():
    with pytest.raises(UserError) as caught:
        TABLE["sqr"]
    assert str(caught.value) == "unknown thing 'sqr'; did you mean sqrt?"
    with pytest.raises(UserError, match="known: Floor, sqrt"):
        TABLE["xyz"]


def test_the_same_beginning_comes_first():
    assert nearest("powerlow", ["zpowerlw", "pegpwrlw", "powerlaw"])[0] == "powerlaw"
    assert nearest("PhoIndx", ["PhoIndex", "nH"]) == ["PhoIndex"]
    assert nearest("qqq", ["powerlaw"]) == []
