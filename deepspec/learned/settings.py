"""Settings of a network as plain data: saved with its weights, read back with every name and value checked."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from deepspec.errors import UserError
from deepspec.registry import did_you_mean


class Settings:
    """Base of the frozen dataclasses that describe a network; subclasses check values in `__post_init__`."""

    def as_dict(self) -> dict[str, Any]:
        """Names and values; tuples become lists, as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: Any = None) -> Self:
        """The settings from plain data.

        Raises
        ------
        UserError
            An unknown name (with the nearest known one) or an impossible value.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UserError(f"unknown setting '{name}'", source=source, remedy=did_you_mean(name, known))
        made = {}
        for name, value in values.items():
            default = known[name].default
            kind = dict if default is dataclasses.MISSING else type(default)
            if kind is tuple and isinstance(value, (list, tuple)):
                value = tuple(value)
            elif kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise UserError(
                    f"{name} = {value!r} is not a {kind.__name__}",
                    source=source,
                    remedy=f"for example {name} = {known[name].default!r}",
                )
            made[name] = value
        try:
            return cls(**made)
        except UserError as error:
            raise UserError(error.problem, source=source or error.source, remedy=error.remedy) from error


def require(good: bool, name: str, value: Any, what: str) -> None:
    """Refuse an impossible value in one sentence."""
    if not good:
        raise UserError(f"{name} = {value!r} is impossible", remedy=f"{name} must be {what}")
