"""Expressions of components: sums, products and convolutions, with exact derivatives by the product rule.

Additive + additive = additive; multiplicative x multiplicative = multiplicative; multiplicative x additive =
additive; convolution of an additive = additive. Anything else is refused when the expression is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Component, Convolution, Exponent, Grid, Kind, Parameter, row_derivatives

Values = Mapping[str, Tensor]
Derivatives = dict[str, Tensor]
Pull = Callable[[Tensor], dict[str, Tensor]]


class Node:
    """A part of an expression; every part can be evaluated and differentiated alone."""

    kind: Kind

    def evaluate(self, grid: Grid, values: Values) -> Tensor:
        """Flux or factor per bin, shape (..., n), for values of shape (..., 1) by parameter key."""
        raise TypeError("abstract node")

    def derivatives(self, grid: Grid, values: Values, wanted: Sequence[str]) -> tuple[Tensor, Derivatives]:
        """Value and, for each wanted key that this part contains, the derivative, each (..., n)."""
        raise TypeError("abstract node")

    def pullback(self, grid: Grid, values: Values, wanted: Sequence[str]) -> tuple[Tensor, Pull]:
        """Value, and a function from weights (..., n) to the weighted sums over bins of each derivative, (...,) by key.

        What a gradient needs: the derivatives themselves are never held.
        """
        value, found = self.derivatives(grid, values, wanted)
        return value, lambda weights: {key: _dot(weights, slope) for key, slope in found.items()}

    def leaves(self) -> Iterator[Leaf]:
        """The components of this part, from left to right."""
        raise TypeError("abstract node")

    def without_absorption(self) -> Node | None:
        """The same part with every absorption factor left out; None if nothing remains."""
        raise TypeError("abstract node")

    def terms(self) -> list[tuple[str, Node]]:
        """The additive terms, each with the factors that act on it: what a plot shows as components."""
        raise TypeError("abstract node")

    def smooth(self) -> bool:
        """True where automatic differentiation sees through every component."""
        return all(leaf.component.twice_differentiable for leaf in self.leaves())


class Leaf(Node):
    """One component under its label; an additive one is multiplied by its norm."""

    def __init__(self, label: str, component: Component):
        self.label, self.component, self.kind = label, component, component.kind
        self.keys = {p.name: f"{label}.{p.name}" for p in component.parameters}
        self.norm = f"{label}.norm" if self.kind is Kind.ADDITIVE else None

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Key and description of each parameter, the norm last."""
        for parameter in self.component.parameters:
            yield self.keys[parameter.name], parameter
        if self.norm:
            yield self.norm, self.component.norm

    def _own(self, values: Values) -> dict[str, Tensor]:
        return {name: values[key] for name, key in self.keys.items()}

    def evaluate(self, grid, values):
        if self.kind is Kind.CONVOLUTION:
            raise TypeError(f"{self.label} acts on a spectrum; it has no value of its own")
        flux = self.component.evaluate(grid, **self._own(values))
        return flux * values[self.norm] if self.norm else flux

    def derivatives(self, grid, values, wanted):
        names = [name for name, key in self.keys.items() if key in wanted]
        flux, slopes = self.component.derivatives(grid, self._own(values), names)
        if not self.norm:
            return flux, {self.keys[name]: slopes[i] for i, name in enumerate(names)}
        norm = values[self.norm]
        found = {self.keys[name]: norm * slopes[i] for i, name in enumerate(names)}
        if self.norm in wanted:
            found[self.norm] = flux + torch.zeros_like(norm)
        return norm * flux, found

    def pullback(self, grid, values, wanted):
        names = [name for name, key in self.keys.items() if key in wanted]
        own = self.component.pullback(grid, self._own(values), names) if names else None
        if own is None:
            return super().pullback(grid, values, wanted)
        flux, pull = own
        norm = values[self.norm] if self.norm else flux.new_ones(1)

        def all_of(weights: Tensor) -> dict[str, Tensor]:
            found = {self.keys[name]: slope for name, slope in pull(weights * norm).items()}
            if self.norm in wanted:
                found[self.norm] = _dot(weights, flux)
            return found

        return norm * flux, all_of

    def leaves(self):
        yield self

    def without_absorption(self):
        return None if self.component.absorption else self

    def terms(self):
        return [(self.label, self)]


class Sum(Node):
    """Additive + additive."""

    kind = Kind.ADDITIVE

    def __init__(self, left: Node, right: Node):
        for side in (left, right):
            if side.kind is not Kind.ADDITIVE:
                raise UserError(
                    f"only additive components can be added, and {_names(side)} is {side.kind.value}",
                    remedy="multiply with it instead: tbabs*(powerlaw+bbody)",
                )
        self.left, self.right = left, right

    def evaluate(self, grid, values):
        return self.left.evaluate(grid, values) + self.right.evaluate(grid, values)

    def derivatives(self, grid, values, wanted):
        left, from_left = self.left.derivatives(grid, values, wanted)
        right, from_right = self.right.derivatives(grid, values, wanted)
        return left + right, {**from_left, **from_right}

    def pullback(self, grid, values, wanted):
        left, pull_left = self.left.pullback(grid, values, wanted)
        right, pull_right = self.right.pullback(grid, values, wanted)
        return left + right, lambda weights: {**pull_left(weights), **pull_right(weights)}

    def leaves(self):
        yield from self.left.leaves()
        yield from self.right.leaves()

    def without_absorption(self):
        return Sum(self.left.without_absorption(), self.right.without_absorption())

    def terms(self):
        return self.left.terms() + self.right.terms()


class Product(Node):
    """Multiplicative x multiplicative, or multiplicative x additive in either order."""

    def __init__(self, left: Node, right: Node):
        kinds = (left.kind, right.kind)
        if kinds == (Kind.ADDITIVE, Kind.ADDITIVE):
            raise UserError(
                f"two additive components cannot be multiplied: {_names(left)} and {_names(right)}",
                remedy="add them with + or multiply by a multiplicative component",
            )
        self.left, self.right = left, right
        self.kind = Kind.ADDITIVE if Kind.ADDITIVE in kinds else Kind.MULTIPLICATIVE

        self.chain = _chain(left) + _chain(right) if _chain(left) and _chain(right) else ()

    def evaluate(self, grid, values):
        power = _Power.of(self.chain, grid, values)
        if power is not None:
            return power.scaled(power.value())
        return self.left.evaluate(grid, values) * self.right.evaluate(grid, values)

    def derivatives(self, grid, values, wanted):
        power = _Power.of(self.chain, grid, values)
        if power is not None:
            return power.derivatives(wanted)
        left, from_left = self.left.derivatives(grid, values, wanted)
        right, from_right = self.right.derivatives(grid, values, wanted)
        found = {key: slope * right for key, slope in from_left.items()}
        found.update((key, left * slope) for key, slope in from_right.items())
        return left * right, found

    def pullback(self, grid, values, wanted):
        power = _Power.of(self.chain, grid, values)
        if power is not None:
            return power.pullback(wanted)
        left, pull_left = self.left.pullback(grid, values, wanted)
        right, pull_right = self.right.pullback(grid, values, wanted)
        return left * right, lambda weights: {**pull_left(weights * right), **pull_right(weights * left)}

    def leaves(self):
        yield from self.left.leaves()
        yield from self.right.leaves()

    def without_absorption(self):
        left, right = self.left.without_absorption(), self.right.without_absorption()
        return Product(left, right) if left and right else left or right

    def terms(self):
        if self.kind is Kind.MULTIPLICATIVE:
            return [(_names(self), self)]
        additive, factor = (self.left, self.right) if self.left.kind is Kind.ADDITIVE else (self.right, self.left)
        return [(name, Product(factor, term)) for name, term in additive.terms()]


class Convolved(Node):
    """A convolution acting on an additive expression."""

    kind = Kind.ADDITIVE

    def __init__(self, leaf: Leaf, argument: Node):
        if argument.kind is not Kind.ADDITIVE:
            raise UserError(
                f"{leaf.label} needs a source of photons to act on, and {_names(argument)} is {argument.kind.value}",
                remedy=f"write {leaf.label}*powerlaw, for instance",
            )
        self.leaf, self.argument = leaf, argument
        self.component: Convolution = leaf.component

    def _apply(self, grid: Grid, values: Values, inner) -> Tensor:
        return self.component.apply(grid, inner, **self.leaf._own(values))

    def evaluate(self, grid, values):
        return self._apply(grid, values, lambda other: self.argument.evaluate(other, values))

    def derivatives(self, grid, values, wanted):
        inside = {key for leaf in self.leaves() for key, _ in leaf.parameters()}
        wanted = [key for key in wanted if key in inside]
        if not wanted:
            with torch.no_grad():
                return self.evaluate(grid, values), {}
        if not self.smooth():
            return _differences(lambda v: self.evaluate(grid, v), values, wanted, self)
        value, slopes = row_derivatives(lambda **v: self.evaluate(grid, v), values, wanted)
        return value, dict(zip(wanted, slopes, strict=True))

    def leaves(self):
        yield self.leaf
        yield from self.argument.leaves()

    def without_absorption(self):
        return Convolved(self.leaf, self.argument.without_absorption())

    def terms(self):
        parts = self.argument.terms()
        if len(parts) == 1 or not getattr(self.component, "linear", False):
            return [("+".join(name for name, _ in parts), self)]
        return [(name, Convolved(self.leaf, term)) for name, term in parts]


def _chain(node: Node) -> tuple[Leaf, ...]:
    """The leaves of a product of leaves, else none."""
    if isinstance(node, Leaf) and node.kind is not Kind.CONVOLUTION:
        return (node,)
    return node.chain if isinstance(node, Product) else ()


class _Power:
    """A product of components that all have an `Exponent`: exp(coefficients @ rows), times a norm.

    Attributes
    ----------
    parts : (key, position of the first row, derivatives of the coefficients) of each parameter
    """

    def __init__(self, chain: Sequence[Leaf], exponents: Sequence[Exponent], values: Values):
        self.norm_key = next((leaf.norm for leaf in chain if leaf.norm), None)
        self.norm = values[self.norm_key] if self.norm_key else None
        batch = np.broadcast_shapes(*(e.coefficients.shape[:-1] for e in exponents))
        self.coefficients = torch.cat([e.coefficients.expand(*batch, -1) for e in exponents], dim=-1)
        self.rows = torch.cat([e.rows for e in exponents])
        self.parts: dict[str, tuple[slice, Tensor]] = {}
        first = 0
        for leaf, exponent in zip(chain, exponents, strict=True):
            place = slice(first, first + len(exponent.rows))
            first = place.stop
            self.parts.update((leaf.keys[name], (place, slope)) for name, slope in exponent.slopes.items())

    @classmethod
    def of(cls, chain: Sequence[Leaf], grid: Grid, values: Values) -> _Power | None:
        """The product, or None if a component has no exponent on these bins."""
        exponents = []
        for leaf in chain:
            exponent = leaf.component.exponent(grid, leaf._own(values))
            if exponent is None:
                return None
            exponents.append(exponent)
        return cls(chain, exponents, values) if exponents else None

    def value(self) -> Tensor:
        """The product at norm 1, shape (..., n)."""
        return (self.coefficients @ self.rows).exp_()

    def scaled(self, value: Tensor) -> Tensor:
        return value if self.norm is None else self.norm * value

    def derivatives(self, wanted: Sequence[str]) -> tuple[Tensor, Derivatives]:
        with torch.no_grad():
            plain = self.value()
            whole = self.scaled(plain)
            found = {}
            for key, (place, slope) in self.parts.items():
                if key in wanted:
                    # In place: these arrays are as large as the caches of a core, and each further one costs a pass.
                    found[key] = (slope @ self.rows[place]).expand_as(whole).contiguous().mul_(whole)
            if self.norm_key in wanted:
                found[self.norm_key] = plain.expand_as(whole)
            return whole, found

    def pullback(self, wanted: Sequence[str]) -> tuple[Tensor, Pull]:
        with torch.no_grad():
            plain = self.value()
            norm = plain.new_ones(1) if self.norm is None else self.norm
            whole = plain.mul_(norm) if plain.shape[:-1] == norm.shape[:-1] else plain * norm
            dark = self.norm is not None and bool((norm == 0).any())

        def pull(weights: Tensor) -> dict[str, Tensor]:
            # One pass over the bins: the derivatives of all parameters are sums over the same few rows.
            weighted = whole * weights
            sums = weighted @ self.rows.T
            found = {
                key: (sums[..., place] * slope).sum(-1) for key, (place, slope) in self.parts.items() if key in wanted
            }
            if self.norm_key in wanted:
                found[self.norm_key] = _dot(weights, self.value()) if dark else weighted.sum(-1) / norm[..., 0]
            return found

        return whole, pull


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.vecdot(left, right.expand_as(left))


def _names(node: Node) -> str:
    return "*".join(leaf.label for leaf in node.leaves())


def _differences(function, values: Values, wanted: list[str], node: Node) -> tuple[Tensor, Derivatives]:
    """Central differences, for operations that automatic differentiation cannot see into.

    The step is 1e-3 of the value (or of one, near zero), which suits models computed in 32 bits.
    """
    limits = {key: parameter for leaf in node.leaves() for key, parameter in leaf.parameters()}
    with torch.no_grad():
        value = function(values)
        found = {}
        for key in wanted:
            step = 1e-3 * values[key].abs().clamp(min=1e-2)
            up = torch.minimum(values[key] + step, torch.tensor(limits[key].hard_max))
            down = torch.maximum(values[key] - step, torch.tensor(limits[key].hard_min))
            found[key] = (function({**values, key: up}) - function({**values, key: down})) / (up - down)
    return value, found
