"""Weights as plain data for people: the card, and what can be told from the file. Numpy alone."""

from __future__ import annotations

import os
from typing import Any

from deepspec.errors import UserError
from deepspec.learned.checkpoint import Weights, read_weights
from deepspec.learned.finding import find_weights, list_weights


def described(name: str | os.PathLike) -> dict[str, Any]:
    """Everything about the weights that `name` means.

    Raises
    ------
    UserError
        There are none, or they cannot be read.
    """
    return description(read_weights(find_weights(name)))


def description(weights: Weights) -> dict[str, Any]:
    """File, hash, size, latent coordinates, energies, networks with their settings, and the card."""
    return {
        "file": weights.path,
        "sha256": weights.sha256,
        "bytes": os.path.getsize(weights.path),
        "latent": weights.latent,
        "band": list(weights.band),
        "range": [round(end, 6) for end in weights.range],
        "parameters": weights.count(),
        "networks": {name: section.config for name, section in weights.sections()},
        "card": weights.card,
    }


def listed() -> list[dict[str, Any]]:
    """Name, place and description of all weights that have a name; of those that cannot be read, what is wrong with them."""
    found = []
    for place in list_weights():
        entry = {"name": place.name, "own": place.own}
        try:
            found.append({**entry, **description(read_weights(place.path))})
        except UserError as error:
            found.append({**entry, "file": str(place.path), "wrong": str(error)})
    return found
