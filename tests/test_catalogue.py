"""Descriptions of components say what the components are."""

from __future__ import annotations

import json

import pytest

from deepspec.catalogue import components, describe, present
from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Kind


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_description_has_every_parameter(name):
    component = COMPONENTS[name]()
    try:
        found = describe(component)
    except UserError as missing:
        pytest.skip(str(missing))
    names = [p.name for p in component.parameters] + (["norm"] if component.kind is Kind.ADDITIVE else [])
    assert [p["name"] for p in found["parameters"]] == names
    assert found["name"] == name
    assert found["summary"]
    assert found["source"]
    json.dumps(found, allow_nan=False)


def test_kinds():
    counts = {kind.value: len(components(kind=kind.value)) for kind in Kind}
    assert sum(counts.values()) == len(present())
    with pytest.raises(UserError, match="unknown kind 'additiv'; did you mean additive"):
        components(kind="additiv")
