"""Values, limits, frozen and linked parameters of one model: an immutable set that engines expand."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Parameter, row_derivatives
from deepspec.registry import nearest

_OPERATIONS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = {"log10": torch.log10, "ln": torch.log, "exp": torch.exp, "sqrt": torch.sqrt, "abs": torch.abs}


@dataclass(frozen=True)
class Entry:
    """State of one parameter."""

    parameter: Parameter
    value: float
    low: float
    high: float
    frozen: bool
    link: str | None = None


class LinkExpression:
    """Arithmetic on parameter keys, read without ever being executed as Python.

    Parameters
    ----------
    text : str
        Such as ``"2*powerlaw.norm + 0.1"``; ``+ - * / **``, brackets and log10, ln, exp, sqrt, abs.
    resolve : callable
        From a written name to a parameter key.
    """

    def __init__(self, text: str, resolve: Callable[[str], str]):
        self.text = text.strip()
        self.keys: list[str] = []
        try:
            tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise UserError(
                "this is not an expression of parameters", f"link '{text}'", "write for instance 2*powerlaw.norm"
            ) from error
        self._function = self._compile(tree, resolve)

    def _compile(
        self, node: ast.AST, resolve: Callable[[str], str]
    ) -> Callable[[Mapping[str, Tensor]], Tensor | float]:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            number = float(node.value)
            return lambda values: number
        if isinstance(node, ast.Name | ast.Attribute):
            key = resolve(ast.unparse(node))
            self.keys.append(key)
            return lambda values: values[key]
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
            operation, inner = _OPERATIONS[type(node.op)], self._compile(node.operand, resolve)
            return lambda values: operation(inner(values))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            operation = _OPERATIONS[type(node.op)]
            left, right = self._compile(node.left, resolve), self._compile(node.right, resolve)
            return lambda values: operation(left(values), right(values))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _FUNCTIONS
            and len(node.args) == 1
        ):
            function, inner = _FUNCTIONS[node.func.id], self._compile(node.args[0], resolve)
            return lambda values: function(torch.as_tensor(inner(values), dtype=torch.float64))
        raise UserError(
            f"'{ast.unparse(node)}' cannot be used in a link",
            f"link '{self.text}'",
            f"use + - * / **, numbers, parameter names and {', '.join(_FUNCTIONS)}",
        )

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.as_tensor(self._function(values), dtype=torch.float64)


class ParameterSet:
    """All parameters of a model with their values; every method that changes something returns a new set.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        By key, as `Model.parameters` gives them.

    Examples
    --------
    >>> from deepspec.models.model import Model
    >>> from deepspec.parameters import ParameterSet
    >>> chosen = ParameterSet(Model("tbabs*powerlaw").parameters).set("PhoIndex", 1.7).freeze("tbabs.nH")
    >>> chosen.free
    ('powerlaw.PhoIndex', 'powerlaw.norm')
    """

    def __init__(self, parameters: Mapping[str, Parameter] | None = None, _entries: dict[str, Entry] | None = None):
        self.entries: dict[str, Entry] = (
            _entries
            if _entries is not None
            else {
                key: Entry(p, p.default, p.soft_min, p.soft_max, p.frozen or p.switch)
                for key, p in (parameters or {}).items()
            }
        )
        self._links = {key: LinkExpression(e.link, self.key) for key, e in self.entries.items() if e.link}
        self._order = self._resolve_order()

    def __getitem__(self, name: str) -> Entry:
        return self.entries[self.key(name)]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, name: str) -> str:
        """The key that `name` means: ``powerlaw.PhoIndex``, any letter case, or ``PhoIndex`` where only one fits.

        Raises
        ------
        UserError
            No such parameter, or several.
        """
        name = name.strip()
        if name in self.entries:
            return name
        matches = [k for k in self.entries if k.lower() == name.lower()]
        if not matches and "." not in name:
            matches = [k for k in self.entries if k.rpartition(".")[2].lower() == name.lower()]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(f"'{name}' may mean {' or '.join(matches)}", remedy="write the component too")
        close = nearest(name, self.entries)
        hint = f"did you mean {' or '.join(close)}?" if close else f"this model has {', '.join(self.entries)}"
        raise UserError(f"unknown parameter '{name}'", remedy=hint)

    def _with(self, name: str, **changes) -> ParameterSet:
        key = self.key(name)
        return ParameterSet(_entries={**self.entries, key: replace(self.entries[key], **changes)})

    def set(self, name: str, value: float) -> ParameterSet:
        """The set with a new value; soft limits give way to it up to the hard ones, as in XSPEC.

        Raises
        ------
        UserError
            Value not finite or beyond the hard limits, or the parameter is linked.
        """
        key = self.key(name)
        entry, limits = self.entries[key], self.entries[key].parameter
        if not math.isfinite(value):
            raise UserError(f"the value {value} of {key} is not a finite number")
        if not limits.hard_min <= value <= limits.hard_max:
            raise UserError(
                f"the value {value:g} of {key} is outside its limits",
                remedy=f"stay within {limits.hard_min:g} and {limits.hard_max:g}",
            )
        if limits.switch and value != round(value):
            raise UserError(f"{key} is a switch and takes whole numbers, not {value:g}")
        return self._with(key, value=float(value), low=min(entry.low, value), high=max(entry.high, value), link=None)

    def limit(self, name: str, low: float, high: float) -> ParameterSet:
        """The set with other limits for the fit; the value is moved inside them."""
        key = self.key(name)
        limits = self.entries[key].parameter
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(
                f"the limits {low:g} and {high:g} of {key} are not an interval", remedy="give LOW:HIGH with LOW < HIGH"
            )
        if low < limits.hard_min or high > limits.hard_max:
            raise UserError(
                f"the limits {low:g} and {high:g} of {key} go beyond what the component allows",
                remedy=f"stay within {limits.hard_min:g} and {limits.hard_max:g}",
            )
        return self._with(key, low=float(low), high=float(high), value=min(max(self.entries[key].value, low), high))

    def freeze(self, name: str) -> ParameterSet:
        """The set with this parameter held at its value."""
        return self._with(name, frozen=True)

    def thaw(self, name: str) -> ParameterSet:
        """The set with this parameter free to vary.

        Raises
        ------
        UserError
            The parameter is a switch.
        """
        key = self.key(name)
        if self.entries[key].parameter.switch:
            raise UserError(f"{key} is a switch and cannot be fitted", remedy=f"set it: --set {key}=1")
        return self._with(key, frozen=False, link=None)

    def link(self, name: str, expression: str) -> ParameterSet:
        """The set with this parameter tied to an expression of others.

        Raises
        ------
        UserError
            Unknown names, a circle of links, or something that is no arithmetic.
        """
        key = self.key(name)
        if self.entries[key].parameter.switch:
            raise UserError(f"{key} is a switch and cannot be linked")
        return self._with(key, link=expression.strip(), frozen=False)

    def _resolve_order(self) -> list[str]:
        order: list[str] = []
        visiting: list[str] = []

        def visit(key: str):
            if key in visiting:
                circle = " -> ".join([*visiting[visiting.index(key) :], key])
                raise UserError(f"the links run in a circle: {circle}", f"link of {key}", "remove one of them")
            if key in order or key not in self._links:
                return
            visiting.append(key)
            for other in self._links[key].keys:
                visit(other)
            visiting.pop()
            order.append(key)

        for key in self._links:
            visit(key)
        return order

    @property
    def free(self) -> tuple[str, ...]:
        """Keys that a fit varies."""
        return tuple(k for k, e in self.entries.items() if not e.frozen and not e.link and not e.parameter.switch)

    @property
    def linked(self) -> tuple[str, ...]:
        """Keys tied to others, in the order in which they can be computed."""
        return tuple(self._order)

    def vector(self, keys: Sequence[str] | None = None) -> Tensor:
        """Present values of the free parameters (or of `keys`), shape (n_free,)."""
        return torch.tensor([self.entries[k].value for k in (self.free if keys is None else keys)], dtype=torch.float64)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper limits of the free parameters, each (n_free,)."""
        return tuple(
            torch.tensor([getattr(self.entries[k], side) for k in self.free], dtype=torch.float64)
            for side in ("low", "high")
        )

    def with_vector(self, theta: Sequence[float]) -> ParameterSet:
        """The set with the free parameters at `theta`; linked values follow."""
        entries = dict(self.entries)
        for key, value in zip(self.free, theta, strict=True):
            entries[key] = replace(entries[key], value=float(value))
        values = self.expand(torch.as_tensor([float(v) for v in theta], dtype=torch.float64))
        for key in self.linked:
            entries[key] = replace(entries[key], value=float(values[key]))
        return ParameterSet(_entries=entries)

    def expand(self, theta: Tensor) -> dict[str, Tensor]:
        """Every parameter for a batch of free vectors.

        Parameters
        ----------
        theta : Tensor, shape (..., n_free)

        Returns
        -------
        dict of str to Tensor, shape (..., 1) where free or linked, (1,) where frozen
        """
        values = {k: torch.tensor([e.value], dtype=torch.float64) for k, e in self.entries.items()}
        for i, key in enumerate(self.free):
            values[key] = theta[..., i : i + 1]
        for key in self.linked:
            values[key] = self._links[key](values)
        return values

    def varying(self) -> tuple[str, ...]:
        """Free keys, then the linked keys that depend on one of them."""
        roots = {key: self.roots(key) for key in self.linked}
        return self.free + tuple(key for key, found in roots.items() if found)

    def roots(self, key: str) -> list[str]:
        """Free parameters on which `key` depends."""
        if key not in self._links:
            return [key] if key in self.free else []
        return [root for other in self._links[key].keys for root in self.roots(other)]

    def chain(self, theta: Tensor) -> Tensor:
        """Derivatives of the varying parameters by the free ones.

        Returns
        -------
        Tensor, shape (..., n_varying, n_free)
        """
        free, varying = self.free, self.varying()
        batch = theta.shape[:-1]
        matrix = torch.zeros((*batch, len(varying), len(free)), dtype=torch.float64)
        matrix[..., : len(free), :] = torch.eye(len(free), dtype=torch.float64)
        for row, key in enumerate(varying[len(free) :], start=len(free)):
            roots = list(dict.fromkeys(self.roots(key)))
            inputs = {root: theta[..., free.index(root) : free.index(root) + 1] for root in roots}

            def value(_key=key, **given):
                values = {k: torch.tensor([e.value], dtype=torch.float64) for k, e in self.entries.items()}
                values.update(given)
                for linked in self.linked:
                    values[linked] = self._links[linked](values)
                return values[_key]

            _, slopes = row_derivatives(value, inputs, roots)
            for root, slope in zip(roots, slopes, strict=True):
                matrix[..., row, free.index(root)] = slope[..., 0]
        return matrix

    def check_links(self, theta: Tensor) -> Tensor:
        """True for the vectors whose linked parameters stay within their hard limits, shape (...,)."""
        ok = torch.ones(theta.shape[:-1], dtype=torch.bool)
        if self.linked:
            values = self.expand(theta)
            for key in self.linked:
                limits = self.entries[key].parameter
                value = values[key][..., 0]
                ok = ok & torch.isfinite(value) & (value >= limits.hard_min) & (value <= limits.hard_max)
        return ok
