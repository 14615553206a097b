"""A model: an expression, its text, and the parameters of all its components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from deepspec.models.algebra import Leaf, Node
from deepspec.models.base import Component, Grid, Kind, Parameter
from deepspec.models.parse import parse_expression


class Model:
    """A spectral model without parameter values; those live in `deepspec.parameters.ParameterSet`.

    Parameters
    ----------
    expression : str or Node
        XSPEC-like text, ``"tbabs*(powerlaw+bbody)"``.

    Raises
    ------
    UserError
        The text cannot be read, or the whole is not a source of photons.

    Examples
    --------
    >>> from deepspec.models.model import Model
    >>> list(Model("tbabs*powerlaw").parameters)
    ['tbabs.nH', 'powerlaw.PhoIndex', 'powerlaw.norm']
    """

    def __init__(self, expression: str | Node):
        self.tree = parse_expression(expression) if isinstance(expression, str) else expression
        self.text = expression.strip() if isinstance(expression, str) else "+".join(n for n, _ in self.tree.terms())

    def __repr__(self) -> str:
        return f"Model({self.text!r})"

    @property
    def kind(self) -> Kind:
        """Additive for anything that can be fitted alone."""
        return self.tree.kind

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The labelled components, from left to right."""
        return tuple(self.tree.leaves())

    @cached_property
    def components(self) -> dict[str, Component]:
        """Components by label."""
        return {leaf.label: leaf.component for leaf in self.leaves}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by key ("powerlaw_2.PhoIndex"), in the order in which XSPEC numbers them."""
        return {key: parameter for leaf in self.leaves for key, parameter in leaf.parameters()}

    @cached_property
    def norms(self) -> tuple[str, ...]:
        """Keys of the norms."""
        return tuple(leaf.norm for leaf in self.leaves if leaf.norm)

    @cached_property
    def smooth(self) -> bool:
        """True if second derivatives can be taken automatically (no component of XSPEC's library)."""
        return self.tree.smooth()

    @cached_property
    def kinks(self) -> frozenset[str]:
        """Keys of the parameters whose second derivative jumps (`Component.kinks`)."""
        return frozenset(leaf.keys[name] for leaf in self.leaves for name in leaf.component.kinks)

    def flux(self, grid: Grid, values: Mapping[str, Tensor]) -> Tensor:
        """Photon flux per bin [photon cm^-2 s^-1], shape (..., n), for values of shape (..., 1)."""
        return self.tree.evaluate(grid, values)

    def derivatives(
        self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Photon flux per bin (..., n) and its derivative by each wanted key, (..., n) or a shape that broadcasts to it."""
        return self.tree.derivatives(grid, values, list(wanted))

    def pullback(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]):
        """Photon flux per bin (..., n), and a function from weights (..., n) to each derivative summed with them, by key."""
        return self.tree.pullback(grid, values, list(wanted))

    def flux_and_derivatives(
        self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Photon flux per bin (..., n) and its derivatives as one tensor (..., len(wanted), n)."""
        flux, found = self.derivatives(grid, values, wanted)
        batch = np.broadcast_shapes(flux.shape, *(values[key].shape for key in wanted))
        flux = flux.expand(batch)
        if not wanted:
            return flux, flux.new_zeros((*flux.shape[:-1], 0, flux.shape[-1]))
        zero = torch.zeros_like(flux)
        return flux, torch.stack([found[key].expand(batch) if key in found else zero for key in wanted], dim=-2)

    @cached_property
    def unabsorbed(self) -> Model | None:
        """The model with every absorption factor left out (``Component.absorption``)."""
        tree = self.tree.without_absorption()
        return None if tree is None else Model(tree)

    @cached_property
    def terms(self) -> list[tuple[str, Model]]:
        """Each additive term with the factors that act on it."""
        return [(name, Model(node)) for name, node in self.tree.terms()]

    @cached_property
    def settings(self) -> dict[str, dict]:
        """Choices that are no parameters (abundances, cross-sections, table files), by label."""
        found = {leaf.label: dict(getattr(leaf.component, "settings", {}) or {}) for leaf in self.leaves}
        return {label: chosen for label, chosen in found.items() if chosen}
