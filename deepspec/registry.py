"""Named things that are loaded only when asked for: components, statistics, engines, commands."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

from deepspec.errors import UserError


def nearest(name: str, known, count: int = 3) -> list[str]:
    """Names in `known` that look most like `name`, best first; case does not matter."""
    lower = {str(k).lower(): str(k) for k in known}
    found = difflib.get_close_matches(name.lower(), list(lower), n=4 * count, cutoff=0.5)

    def likeness(other: str) -> float:
        # people mistype endings more often than beginnings
        begun = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name.lower(), other, strict=False)))
        return difflib.SequenceMatcher(None, name.lower(), other).ratio() + 0.1 * begun / max(len(name), 1)

    return [lower[k] for k in sorted(found, key=likeness, reverse=True)[:count]]


def did_you_mean(name: str, known) -> str:
    """The remedy of an unknown-name error: the nearest names, or the whole list if none is near."""
    close = nearest(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    listed = sorted(map(str, known))
    return f"known: {', '.join(listed[:40])}" + (", ..." if len(listed) > 40 else "")


class Registry(Mapping):
    """A visible table of names and where each object lives, imported at first use.

    Parameters
    ----------
    kind : str
        What the names stand for, used in messages ("component").
    table : dict of str to str
        ``name -> "module:object"``.
    aliases : dict of str to str, optional
        Other spellings.
    """

    def __init__(self, kind: str, table: Mapping[str, str], aliases: Mapping[str, str] | None = None):
        self.kind = kind
        self._table = dict(table)
        self._aliases = dict(aliases or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def _find(self, name: str) -> str | None:
        key = name.lower()
        key = self._aliases.get(key, key)
        for known in self._table:
            if known.lower() == key:
                return known
        return None

    def __getitem__(self, name: str) -> Any:
        known = self._find(name)
        if known is None:
            raise UserError(f"unknown {self.kind} '{name}'", remedy=did_you_mean(name, self._table))
        module, _, attribute = self._table[known].partition(":")
        return getattr(importlib.import_module(module), attribute)
