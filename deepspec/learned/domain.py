"""Where learned components may be used: energies of the data against those that the weights know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from deepspec.errors import UserError
from deepspec.models.algebra import Convolved, Leaf, Node
from deepspec.models.model import Model

SLACK = 0.03
"""Part of an energy by which a bin may reach over an end: bins are selected when they touch the range."""


def learned_leaves(model: Model) -> list[Leaf]:
    """The components of a model that are read from weights."""
    return [leaf for leaf in model.leaves if hasattr(leaf.component, "trained_band")]


def trained_band(model: Model) -> tuple[float, float] | None:
    """Energies of data that all learned components of a model were trained for [keV]; None where it has none."""
    bands = [leaf.component.trained_band for leaf in learned_leaves(model)]
    if not bands:
        return None
    return max(low for low, _ in bands), min(high for _, high in bands)


def stretched(node: Node, value: Callable[[str], float], factor: float = 1.0) -> Iterator[tuple[Leaf, float]]:
    """Every component with (1 + z) of the redshifts that act on it.

    Parameters
    ----------
    node : Node
    value : callable
        Value of a parameter by its key.
    """
    if isinstance(node, Leaf):
        yield node, factor
    elif isinstance(node, Convolved):
        key = node.leaf.keys.get("Redshift")
        yield from stretched(node.argument, value, factor if key is None else factor * (1.0 + value(key)))
    else:
        yield from stretched(node.left, value, factor)
        yield from stretched(node.right, value, factor)


def check_bands(model: Model, value: Callable[[str], float], bands: Iterable[tuple[str, float, float]]) -> list[str]:
    """Refuse data where a learned component has no photons; say where it was not trained.

    Parameters
    ----------
    model : Model
    value : callable
        Value of a parameter by its key, for redshifts that act on a learned component.
    bands : iterable of (name, low, high)
        Fitted energies of each observation [keV].

    Returns
    -------
    list of str
        Sentences about data outside the trained band.

    Raises
    ------
    UserError
        Data outside the energies on which the spectrum is defined.
    """
    warnings = []
    found = [(leaf, factor) for leaf, factor in stretched(model.tree, value) if leaf in learned_leaves(model)]
    for name, low, high in bands:
        for leaf, factor in found:
            (bottom, top), trained = leaf.component.energy_range, leaf.component.trained_band
            shift = "" if factor == 1.0 else f" (at the source; 1 + z = {factor:.4g})"
            seen = f"the fitted bins reach from {low:.3g} to {high:.3g} keV"
            if low * factor < bottom * (1.0 - SLACK) or high * factor > top * (1.0 + SLACK):
                inner = max(bottom, trained[0]) / factor, min(top, trained[1]) / factor
                raise UserError(
                    f"{seen}, and {leaf.label} knows {bottom:g}-{top:g} keV{shift}",
                    name,
                    f"choose energies it knows, --notice {inner[0]:.3g}:{inner[1]:.3g}, or another model",
                )
            if low * factor < trained[0] * (1.0 - SLACK) or high * factor > trained[1] * (1.0 + SLACK):
                warnings.append(
                    f"{name}: {seen}, and {leaf.label} was trained for {trained[0]:g}-{trained[1]:g} keV{shift}"
                )
    return warnings


def flux_warnings(model: Model, value: Callable[[str], float], bands: Iterable[tuple[float, float]]) -> list[str]:
    """Sentences about flux bands [keV] of which a learned component knows only a part: the rest adds nothing to the flux."""
    warnings = []
    learned = learned_leaves(model)
    for leaf, factor in stretched(model.tree, value):
        if leaf in learned:
            low, high = (end / factor for end in leaf.component.energy_range)
            warnings += [
                f"the flux of {leaf.label} in {a:.3g}-{b:.3g} keV is that of {max(a, low):.3g}-{min(b, high):.3g} keV: it has no photons outside"
                if b > low and a < high
                else f"{leaf.label} has no photons in {a:.3g}-{b:.3g} keV"
                for a, b in bands
                if a < low * (1.0 - 1e-6) or b > high * (1.0 + 1e-6)
            ]
    return warnings
