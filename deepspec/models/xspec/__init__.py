"""Any model of XSPEC's own library by name; the library is loaded when a model is first evaluated.

>>> from deepspec.models.xspec import available, xspec_component
>>> if available()[0]:
...     component = xspec_component("nthComp")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deepspec.errors import UserError
from deepspec.models.xspec import library as _library
from deepspec.models.xspec.library import Settings
from deepspec.registry import did_you_mean

if TYPE_CHECKING:
    from deepspec.models.base import Component

__all__ = ["Settings", "available", "xspec_component", "xspec_models"]


def available() -> tuple[bool, str]:
    """Whether XSPEC's models can be asked for, and which library answers or why none does."""
    try:
        used = _library.library()
        return bool(used.definitions), f"{used.label} ({used.headas})"
    except UserError as error:
        return False, str(error)


def xspec_models() -> Mapping[str, str]:
    """Every model of the library that can be part of a spectrum: XSPEC's name -> kind and parameters.

    Raises
    ------
    UserError
        If no library is installed.
    """
    definitions = _library.library().definitions.values()
    return {definition.name: definition.describe() for definition in definitions if definition.kind != "acn"}


def xspec_component(name: str, settings: Settings | None = None, check: bool = True) -> Component:
    """A model of XSPEC's library as a component, also where a native component has the same name.

    Parameters
    ----------
    name : str
        As in XSPEC's ``model.dat``, in any case; ``xs_`` or ``xspec.`` in front is allowed.
    settings : Settings, optional
        Abundances (wilm), cross-sections (vern) and cosmology (70, 0, 0.73).
    check : bool
        Try the model in a child process (a third of a second when it was never tried before). The trial is only put
        off by False: no model is called in this process without one.

    Raises
    ------
    UserError
        No library is installed, it has no model of that name, or the model's data files are missing.
    """
    short = name
    for prefix in ("xs_", "xspec."):
        if name.lower().startswith(prefix):
            short = name[len(prefix) :]
    known = _library.library().definitions
    definition = known.get(short.lower())
    if definition is None:
        raise UserError(
            f"XSPEC's library has no model '{short}'", remedy=did_you_mean(short, [d.name for d in known.values()])
        )
    from deepspec.models.xspec.component import make_component

    return make_component(definition, settings, check)
