"""What a spectral component is: parameters as data, a flux per bin, exact derivatives.

A new component is one class in one file of this folder and one line in ``models/__init__.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor


class Kind(enum.Enum):
    """Kind of a component or of an expression; the algebra is in ``algebra.py``."""

    ADDITIVE = "additive"
    MULTIPLICATIVE = "multiplicative"
    CONVOLUTION = "convolution"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component: name, unit, default and limits as in XSPEC's model.dat.

    Parameters
    ----------
    name : str
        XSPEC's spelling ("PhoIndex", "nH").
    default : float
    unit : str
        Empty for a pure number; "10^22" means 1e22 cm^-2 as XSPEC writes it.
    hard_min, soft_min, soft_max, hard_max : float
        A fit stays within the soft limits; a user may set a value up to the hard ones.
    frozen : bool
        Frozen unless the user thaws it (XSPEC: negative delta).
    switch : bool
        An integer that selects a method; it can never be fitted.
    log : bool
        Positive scale parameter: searched and started in its logarithm.
    prior : str
        Prior that a fit uses unless another is given, as `priors.parse_prior` reads it; empty for none.
    """

    name: str
    default: float
    unit: str = ""
    hard_min: float = -1e30
    soft_min: float = -1e30
    soft_max: float = 1e30
    hard_max: float = 1e30
    frozen: bool = False
    switch: bool = False
    log: bool = False
    prior: str = ""


def NORM(unit: str = "", default: float = 1.0) -> Parameter:
    """The norm that the algebra appends to every additive component."""
    return Parameter("norm", default, unit, 0.0, 0.0, 1e20, 1e24, log=True)


class Grid:
    """Energy bins on which components are evaluated.

    Parameters
    ----------
    edges : array or Tensor, shape (..., n + 1) [keV]
        Rising and positive. Leading axes are batch axes (redshifted grids).

    Notes
    -----
    What depends on the bins alone (a cross-section, the logarithm of the edges) is kept by `memo`
    as long as the grid lives, so nothing needs a global cache.
    """

    def __init__(self, edges: Any):
        self.edges = torch.as_tensor(edges, dtype=torch.float64)
        self._memo: dict[Any, Any] = {}

    def __len__(self) -> int:
        """Number of bins."""
        return self.edges.shape[-1] - 1

    def __repr__(self) -> str:
        return f"Grid({len(self)} bins, {float(self.edges.min()):.4g}-{float(self.edges.max()):.4g} keV)"

    def memo(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value kept under `key`, made by `make()` at first use."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    @cached_property
    def low(self) -> Tensor:
        """Lower edges, shape (..., n) [keV]."""
        return self.edges[..., :-1]

    @cached_property
    def high(self) -> Tensor:
        """Upper edges, shape (..., n) [keV]."""
        return self.edges[..., 1:]

    @cached_property
    def width(self) -> Tensor:
        """Bin widths, shape (..., n) [keV]."""
        return self.high - self.low

    @cached_property
    def middle(self) -> Tensor:
        """Arithmetic bin middles, shape (..., n) [keV]."""
        return 0.5 * (self.high + self.low)

    @cached_property
    def log_edges(self) -> Tensor:
        """ln of the edges, shape (..., n + 1)."""
        return torch.log(self.edges)

    def times(self, factor: Tensor) -> Grid:
        """The grid with all edges multiplied by `factor`, shape (..., 1), e.g. 1 + z."""
        return Grid(self.edges * factor)


def row_derivatives(
    function: Callable[..., Tensor], values: Mapping[str, Tensor], wanted: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Value and exact derivatives of ``function(**values)``, whose batch rows do not depend on each other.

    The gradient contracted with a vector v is linear in v, so differentiating it by v gives the derivative of every bin:
    two reverse passes, without copying the batch for each direction. (Forward mode would do the same in one pass, but its first
    use in a process makes torch import its compiler, which takes as long as importing torch.)

    Parameters
    ----------
    function : callable
        Takes tensors of shape (..., 1) by name, returns (..., n); twice differentiable.
    values : mapping of str to Tensor, shape (..., 1)
    wanted : sequence of str
        Names to differentiate by; at least one.

    Returns
    -------
    value : Tensor, shape (..., n)
    derivatives : Tensor, shape (len(wanted), ..., n)
    """
    # numpy's: torch.broadcast_shapes imports sympy, which takes longer than a fit.
    batch = np.broadcast_shapes(*(value.shape for value in values.values()))
    given = {name: value.detach() for name, value in values.items()}
    with torch.enable_grad():
        inputs = [given[name].expand(batch).clone().requires_grad_() for name in wanted]
        result = function(**{**given, **dict(zip(wanted, inputs, strict=True))})
        if not result.requires_grad:
            return result, result.new_zeros((len(wanted), *result.shape))
        vector = torch.zeros_like(result, requires_grad=True)
        contracted = torch.autograd.grad(result, inputs, vector, create_graph=True, allow_unused=True)
        slopes = [_by_vector(part, vector) for part in contracted]
    return result.detach(), torch.stack(slopes)


def _by_vector(contracted: Tensor | None, vector: Tensor) -> Tensor:
    if contracted is None or not contracted.requires_grad:
        return torch.zeros_like(vector)
    (slope,) = torch.autograd.grad(contracted.sum(), vector, retain_graph=True, allow_unused=True)
    return torch.zeros_like(vector) if slope is None else slope.detach()


class Component:
    """A spectral component. Subclass `Additive`, `Multiplicative` or `Convolution`, not this.

    Class attributes
    ----------------
    name : str
        As XSPEC types it ("powerlaw").
    parameters : tuple of Parameter
        In XSPEC's order, without the norm.
    absorption : bool
        True where "unabsorbed" means that this factor is left out.
    source : str
        Where the formula is from, for the documentation.
    twice_differentiable : bool
        False where automatic differentiation cannot see inside (XSPEC's library).
    takes_file : bool
        True where the class takes the name in braces that may follow its name in a model: ``deepspec{FILE}``.
    kinks : tuple of str
        Parameters along which a table is interpolated by straight lines: their second derivative jumps from knot to knot,
        so curvatures are taken by differences of the gradient.
    """

    kind: ClassVar[Kind]
    name: str = ""
    parameters: tuple[Parameter, ...] = ()
    absorption: bool = False
    source: str = ""
    origin: str = "native"
    twice_differentiable: bool = True
    takes_file: bool = False
    kinks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True, eq=False)
class Exponent:
    """The logarithm of a component as a short sum: functions of the parameters times rows that depend on the grid alone.

    Products of such components are one small matrix product and one exponential, whatever their number.

    Attributes
    ----------
    coefficients : Tensor, shape (..., K)
    rows : Tensor, shape (K, n)
        The value per bin is ``exp(coefficients @ rows)``.
    slopes : dict of str to Tensor, shape (..., K)
        Derivatives of the coefficients by each parameter.
    """

    coefficients: Tensor
    rows: Tensor
    slopes: Mapping[str, Tensor]


class _PerBin(Component):
    def exponent(self, grid: Grid, values: Mapping[str, Tensor]) -> Exponent | None:
        """The component as an `Exponent`, or None where it has no such form (most components, or these bins)."""
        return None

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        """Value per bin.

        Parameters
        ----------
        grid : Grid with n bins
        **values : Tensor, shape (..., 1)
            One per parameter, by name.

        Returns
        -------
        Tensor, shape (..., n)
            Additive: photon cm^-2 s^-1 in each bin at norm 1. Multiplicative: the factor.
        """
        raise TypeError(f"{type(self).__name__} does not say how it is evaluated")

    def pullback(
        self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]] | None:
        """Value (..., n), and a function from weights (..., n) to the sums over bins of weights times derivatives, by name.

        None where a component has no better way than `derivatives`.
        """
        return None

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Value (..., n) and derivatives (len(wanted), ..., n) by the parameters named in `wanted`.

        Automatic through `evaluate`; override where a closed form is cheaper or autograd cannot see.
        """
        if not wanted:
            with torch.no_grad():
                value = self.evaluate(grid, **values)
            return value, value.new_zeros((0, *value.shape))
        return row_derivatives(lambda **v: self.evaluate(grid, **v), values, list(wanted))


class Additive(_PerBin):
    """A source of photons: `evaluate` returns photon cm^-2 s^-1 per bin at norm 1."""

    kind = Kind.ADDITIVE
    norm: Parameter = NORM()


class Multiplicative(_PerBin):
    """A factor per bin."""

    kind = Kind.MULTIPLICATIVE


class Convolution(Component):
    """An operation on the whole spectrum of its argument."""

    kind = Kind.CONVOLUTION

    def apply(self, grid: Grid, inner: Callable[[Grid], Tensor], **values: Tensor) -> Tensor:
        """Flux per bin of the transformed spectrum.

        Parameters
        ----------
        grid : Grid with n bins
        inner : callable
            ``inner(other_grid)`` is the argument's flux per bin on any grid, so nothing is lost at the ends.
        **values : Tensor, shape (..., 1)

        Returns
        -------
        Tensor, shape (..., n)
        """
        raise TypeError(f"{type(self).__name__} does not say what it does to its argument")
