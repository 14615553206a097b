"""Descriptions of components as plain data: what `deepspec models` shows."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Component, Kind, Parameter
from deepspec.models.parse import TABLE_MODELS, component_named
from deepspec.registry import did_you_mean


def describe(component: Component) -> dict[str, Any]:
    """Name, kind, origin, parameters with units, defaults and limits (the norm last), text and source.

    Raises
    ------
    UserError
        The component is read from a file that is not there.
    """
    parameters = [*component.parameters, *([component.norm] if component.kind is Kind.ADDITIVE else [])]
    text = inspect.getdoc(type(component)) or ""
    text = text.split("\nParameters\n")[0].replace("``", "").strip()
    return {
        "name": component.name,
        "kind": component.kind.value,
        "origin": component.origin,
        "summary": " ".join(text.split("\n\n")[0].split()).rstrip("."),
        "description": text,
        "source": component.source,
        "parameters": [_parameter(p) for p in parameters],
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    found = asdict(parameter)
    found.pop("log")
    return {key: None if isinstance(value, float) and abs(value) >= 1e29 else value for key, value in found.items()}


def components(names: Sequence[str] = (), kind: str | None = None, xspec: bool = False) -> list[dict[str, Any]]:
    """Descriptions of the named components, or of all native ones.

    Parameters
    ----------
    names : sequence of str
        As typed in a model; XSPEC's abbreviations will do.
    kind : str, optional
        "additive", "multiplicative" or "convolution".
    xspec : bool
        The models of XSPEC's library in place of the native ones.

    Raises
    ------
    UserError
        An unknown name or kind; no XSPEC library.
    """
    kinds = [k.value for k in Kind]
    if kind is not None and kind not in kinds:
        raise UserError(f"unknown kind '{kind}'", "--kind", did_you_mean(kind, kinds))
    found: Iterable[dict[str, Any]]
    if names:
        found = [_named(name, xspec) for name in names]
    elif xspec:
        found = [_from_definition(d) for d in _definitions().values() if d.kind != "acn"]
    else:
        found = [describe(component) for component in present()]
    return [item for item in found if kind is None or item["kind"] == kind]


def present() -> list[Component]:
    """Every native component; one that is read from a file only if the file is there."""
    made = []
    for name in COMPONENTS:
        component = COMPONENTS[name]()
        if component.takes_file:
            try:
                _ = component.parameters
            except UserError:
                continue
        made.append(component)
    return made


def _named(name: str, xspec: bool) -> dict[str, Any]:
    if name.lower() in TABLE_MODELS:
        raise UserError(f"{name} is read from a file", remedy=f"write {name}{{model.fits}} in a model expression")
    plain = name.lower().removeprefix("xs_")
    if plain not in COMPONENTS or xspec or plain != name.lower():
        definition = _known_to_xspec(plain)
        if definition is not None:
            return _from_definition(definition)
    return describe(component_named(name))


def _definitions() -> dict[str, Any]:
    from deepspec.models.xspec.library import library

    return dict(library().definitions)


def _known_to_xspec(name: str) -> Any:
    from deepspec.models.xspec import available

    if not available()[0]:
        return None
    return next((d for d in _definitions().values() if d.name.lower() == name and d.kind != "acn"), None)


def _from_definition(definition: Any) -> dict[str, Any]:
    """A model of XSPEC's library by its entry in model.dat; nothing of the library is called."""
    from deepspec.models.base import NORM
    from deepspec.models.xspec.component import parameter_of
    from deepspec.models.xspec.modeldat import KINDS

    parameters = [parameter_of(entry) for entry in definition.entries]
    if definition.kind == "add" and not any(p.name == "norm" for p in parameters):
        parameters.append(NORM())
    summary = f"XSPEC's {definition.name}"
    return {
        "name": definition.name,
        "kind": KINDS[definition.kind],
        "origin": "xspec",
        "summary": summary,
        "description": f"{summary}; see the XSPEC manual.",
        "source": "XSPEC's model.dat",
        "parameters": [_parameter(p) for p in parameters],
    }
