"""Every line of every visible table loads, and every public name exists."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import deepspec
from deepspec.errors import UserError
from deepspec.registry import Registry


def registries() -> dict[str, Registry]:
    """Every `Registry` that is an attribute of a module of ours, by "module.NAME"."""
    found = {}
    for name in ("deepspec", "deepspec_cli"):
        package = importlib.import_module(name)
        names = [name, *(m.name for m in pkgutil.walk_packages(package.__path__, name + "."))]
        for module in map(importlib.import_module, (n for n in names if not n.endswith("__main__"))):
            for key, value in vars(module).items():
                if isinstance(value, Registry) and not any(value is known for known in found.values()):
                    found[f"{module.__name__}.{key}"] = value
    return found


REGISTRIES = registries()


def test_the_known_tables_are_found():
    kinds = {registry.kind for registry in REGISTRIES.values()}
    assert {"component", "statistic"} <= kinds


@pytest.mark.parametrize(
    ("table", "name"), [(table, name) for table, registry in REGISTRIES.items() for name in registry], ids=str
)
def test_every_line_loads(table, name):
    assert REGISTRIES[table][name] is not None


@pytest.mark.parametrize("table", REGISTRIES)
def test_an_unknown_name_gets_a_remedy(table):
    registry = REGISTRIES[table]
    first = next(iter(registry))
    with pytest.raises(UserError, match=first):
        registry[first + "x"]


def test_public_names_exist_and_are_listed():
    assert deepspec.__all__, "the package names no public object"
    for name in deepspec.__all__:
        assert getattr(deepspec, name) is not None
        assert name in dir(deepspec)


def test_no_public_name_is_also_a_module():
    """Which of the two `deepspec.name` means would depend on what was imported before."""
    modules = {module.name for module in pkgutil.iter_modules(deepspec.__path__)}
    assert not modules & set(deepspec.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        deepspec.no_such_name  # noqa: B018
