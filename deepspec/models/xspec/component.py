"""Models of XSPEC's library as components: values from the library, derivatives by finite differences."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Additive, Component, Convolution, Grid, Multiplicative, Parameter
from deepspec.models.xspec.calls import ConvolutionCall, PerBinCall, Recent, array_of
from deepspec.models.xspec.datafiles import missing_files, refusal
from deepspec.models.xspec.library import LOCK, Settings, describe, library
from deepspec.models.xspec.modeldat import Definition, Entry
from deepspec.models.xspec.probe import probe

#: Relative steps of the differences, near the cube root of the precision of the output: 1e-7 of functions of 32-bit
#: floats; functions of 64-bit floats often compute in 32 bits or interpolate inside (nthComp jumps by 5e-6).
STEP_SINGLE, STEP_DOUBLE = 5e-3, 1e-3

#: What "unabsorbed" leaves out: matter in the line of sight, not windows, mirrors or detectors.
ABSORPTION = frozenset(
    "absori cabs dust heilin ismabs ismdust lyman olivineabs pcfabs phabs pwab redden swind1 tbabs tbfeo tbgas tbgrain "
    "tbpcf tbrel tbvarabs uvred varabs vphabs wabs wndabs xscat zbabs zdust zigm zpcfabs zphabs zredden zsmdust ztbabs "
    "zvarabs zvfeabs zvphabs zwabs zwndabs zxipab zxipcf".split()
)


def parameter_of(entry: Entry) -> Parameter:
    """The parameter of a component from a line of ``model.dat``.

    A positive parameter whose soft limits span a factor of a hundred is searched in its logarithm.
    """
    if entry.limits is None:
        return Parameter(entry.name, entry.default, entry.unit, frozen=True, switch=entry.switch)
    hard_min, soft_min, soft_max, hard_max = entry.limits
    log = soft_min > 0 and soft_max / soft_min >= 100 and not entry.switch
    return Parameter(
        entry.name, entry.default, entry.unit, hard_min, soft_min, soft_max, hard_max, entry.frozen, entry.switch, log
    )


class FromLibrary(Component):
    """What the three kinds share: calls row by row, trials, and differences.

    Attributes
    ----------
    definition : Definition
        Entry of ``model.dat``.
    settings : dict
        Library, version, data folder, abundances, cross-sections and cosmology in force, for the record.

    Notes
    -----
    A batch is a loop over its distinct parameter vectors, and derivatives cost two calls per parameter: this, not the
    fit, is the slow part. Values are NaN where the model returned none or the parameters lie outside its hard limits
    (where the library may crash); an engine takes a prediction that is not finite as a step to be rejected.
    """

    origin = "xspec"
    twice_differentiable = False

    def __init__(self, definition: Definition, settings: Settings | None = None):
        self.definition = definition
        self.name = definition.name
        self.parameters = tuple(parameter_of(entry) for entry in definition.entries)
        self.absorption = definition.name.lower() in ABSORPTION
        self.source = "XSPEC's model library"
        self.step = STEP_SINGLE if definition.single else STEP_DOUBLE
        self._state = settings or Settings()
        self._library = library()
        self.settings = describe(self._state)
        self._tried: dict[tuple[float, ...], bool] = {}
        low, high = np.array([(p.hard_min, p.hard_max) for p in self.parameters], dtype=float).reshape(-1, 2).T
        self._low, self._high = (
            low - 1e-6 * np.abs(low),
            high + 1e-6 * np.abs(high),
        )  # limits rounded to 32 bits are inside

    def check(self) -> None:
        """Try the model at its defaults in a child process.

        Raises
        ------
        UserError
            If it fails for want of a data file and no switch can select another one.
        """
        defaults = self.definition.defaults
        outcome = probe(self.definition, defaults, self._state)
        if not outcome.ok and not self.definition.switches and self._missing(defaults):
            raise refusal(self.definition, defaults, outcome.what, outcome.said)

    def _missing(self, parameters: Sequence[float]) -> list[str]:
        return missing_files(self.definition, parameters, self._library.data_folder)

    def _try(self, point: np.ndarray) -> bool:
        """Make sure that the model survives with the switches of `point`; True if it prints at every call."""
        switches = tuple(point[list(self.definition.switches)])
        if switches in self._tried:
            return self._tried[switches]
        with LOCK:
            parameters = self.definition.defaults
            for position, value in zip(self.definition.switches, switches, strict=True):
                parameters[position] = float(value)
            outcome = probe(self.definition, parameters, self._state)
            if not outcome.ok and not self._missing(parameters):  # the defaults themselves may be at fault
                parameters = [float(value) for value in point]
                outcome = probe(self.definition, parameters, self._state)
            if not outcome.ok:
                raise refusal(self.definition, parameters, outcome.what, outcome.said)
            self._tried[switches] = outcome.loud
        return outcome.loud

    def _row(self, edges: np.ndarray, point: np.ndarray, flux: np.ndarray | None = None) -> np.ndarray:
        """One call, shape (n,); NaN outside the hard limits."""
        if not (np.isfinite(point).all() and (point >= self._low).all() and (point <= self._high).all()):
            return np.full(len(edges) - 1, np.nan)
        loud = self._try(point)
        return self._library.evaluate(self.definition, edges, point, self._state, flux, loud or None)

    def _points(self, values: Mapping[str, Tensor], batch: Sequence[int]) -> Tensor:
        """Parameters in order, shape (*batch, number of parameters)."""
        columns = [torch.as_tensor(values[p.name], dtype=torch.float64) for p in self.parameters]
        if not columns:
            return torch.zeros((*batch, 0), dtype=torch.float64)
        shape = np.broadcast_shapes(*(column.shape for column in columns), (*batch, 1))
        return torch.cat([column.expand(shape) for column in columns], dim=-1)

    def slope(
        self, rows: Callable[[np.ndarray], np.ndarray], points: np.ndarray, value: np.ndarray, k: int
    ) -> np.ndarray:
        """Derivative by parameter `k` at each point, shape (m, n): three points, one-sided near a hard limit.

        Parameters
        ----------
        rows : callable
            ``rows(points)`` evaluates the model at points (m, number of parameters).
        points : ndarray, shape (m, number of parameters)
        value : ndarray, shape (m, n)
            ``rows(points)``.
        """
        parameter, centre = self.parameters[k], self._rounded(points[:, k])
        room = parameter.hard_max - parameter.hard_min
        step = np.minimum(self.step * np.maximum(np.abs(centre), self.definition.entries[k].scale), 0.1 * room)
        up, down = np.where(centre - step < parameter.hard_min, 2 * step, step), -step
        at_top = centre + up > parameter.hard_max
        first = np.where(at_top, -2 * step, up)
        second = np.where(up > 1.5 * step, step, down)
        moved = [self._rounded(np.clip(centre + d, parameter.hard_min, parameter.hard_max)) for d in (first, second)]
        a, b = (x - centre for x in moved)
        at_a, at_b = (rows(_with_column(points, k, x)) for x in moved)
        a, b = a[:, None], b[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (-(a + b) / (a * b)) * value - b / (a * (a - b)) * at_a + a / (b * (a - b)) * at_b
            one_sided = np.where(np.isfinite(at_a), (at_a - value) / a, (at_b - value) / b)
        return np.where(np.isfinite(slope), slope, one_sided)

    def _rounded(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as the model sees them, so that steps are known exactly."""
        return numbers.astype(np.float32).astype(np.float64) if self.definition.single else numbers

    def along(self, rows: Callable[[float], np.ndarray], size: float) -> np.ndarray:
        """Derivative of ``rows(t)`` at t = 0 by a central difference; `size` is the relative change per unit t."""
        step = self.step / size
        return (rows(step) - rows(-step)) / (2 * step)


def _with_column(points: np.ndarray, k: int, column: np.ndarray) -> np.ndarray:
    moved = points.copy()
    moved[:, k] = column
    return moved


class _PerBin(FromLibrary):
    """Additive and multiplicative models: a value per bin from parameters and edges."""

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        """Value per bin (..., n); see `Additive.evaluate`. NaN where the model returns none.

        Raises
        ------
        UserError
            If the model fails when tried (missing data files, crash).
        """
        edges = grid.edges
        points = self._points(values, edges.shape[:-1])
        wanted = tuple(k for k, p in enumerate(self.parameters) if torch.as_tensor(values[p.name]).requires_grad)
        return PerBinCall.apply(points, edges, self, self._recent(grid), wanted)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Value (..., n) and finite-difference derivatives (len(wanted), ..., n).

        Raises
        ------
        UserError
            As `evaluate`.
        ValueError
            If a switch is among `wanted`.
        """
        points, edges = self._points(values, grid.edges.shape[:-1]), array_of(grid.edges)
        flat, shape = array_of(points).reshape(-1, points.shape[-1]), points.shape[:-1]
        rows = self.rows_on(edges, shape, self._recent(grid))
        value = rows(flat)
        names = [p.name for p in self.parameters]
        if any(self.parameters[names.index(name)].switch for name in wanted):
            raise ValueError("a switch has no derivative")
        slopes = [self.slope(rows, flat, value, names.index(name)) for name in wanted]
        shape = (*shape, value.shape[-1])
        stacked = np.array(slopes).reshape(len(slopes), *shape)
        return torch.from_numpy(value.reshape(shape).copy()), torch.from_numpy(stacked)

    def _recent(self, grid: Grid) -> Recent:
        return grid.memo(("xspec", self.name, self._state, os.environ.get("XSPEC_MDATA_DIR")), Recent)

    def rows_on(self, edges: np.ndarray, batch: Sequence[int], recent: Recent) -> Callable[[np.ndarray], np.ndarray]:
        """A function from points (m, number of parameters) to values (m, n) on edges (n + 1,) or (*batch, n + 1)."""
        if edges.ndim == 1:

            def rows(points):
                return np.array([recent.get(point.tobytes(), lambda p=point: self._row(edges, p)) for point in points])

            return rows
        each = np.broadcast_to(edges, (*batch, edges.shape[-1])).reshape(-1, edges.shape[-1])
        own = Recent(kept=1024)

        def rows(points):
            pairs = zip(each, points, strict=True)
            return np.array([own.get(e.tobytes() + p.tobytes(), lambda e=e, p=p: self._row(e, p)) for e, p in pairs])

        return rows


class XspecAdditive(_PerBin, Additive):
    """An additive model of XSPEC's library: photon cm^-2 s^-1 per bin at norm 1."""


class XspecMultiplicative(_PerBin, Multiplicative):
    """A multiplicative model of XSPEC's library."""


class XspecConvolution(FromLibrary, Convolution):
    """A convolution model of XSPEC's library.

    The argument is evaluated on the bins of the fit, as XSPEC does without its ``energies`` command: flux that a model
    would bring in from outside them is lost. Derivatives through the argument exist in forward mode only.
    """

    def apply(self, grid: Grid, inner: Callable[[Grid], Tensor], **values: Tensor) -> Tensor:
        """Flux per bin of the transformed spectrum, (..., n); see `Convolution.apply`.

        Raises
        ------
        UserError
            If the model fails when tried (missing data files, crash).
        """
        flux = inner(grid)
        points = self._points(values, np.broadcast_shapes(flux.shape[:-1], grid.edges.shape[:-1]))
        wanted = tuple(k for k, p in enumerate(self.parameters) if torch.as_tensor(values[p.name]).requires_grad)
        flux = flux.expand(*points.shape[:-1], flux.shape[-1])
        return ConvolutionCall.apply(points, flux, grid.edges, self, wanted)

    def rows_on(self, edges: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        known = Recent(kept=1024)

        def rows(points, flux):
            each = np.broadcast_to(edges, (len(points), edges.shape[-1]))
            triples = zip(each, points, flux, strict=True)
            return np.array(
                [
                    known.get(e.tobytes() + p.tobytes() + f.tobytes(), lambda e=e, p=p, f=f: self._row(e, p, f))
                    for e, p, f in triples
                ]
            )

        return rows


def make_component(definition: Definition, settings: Settings | None, check: bool) -> Component:
    """The component of a definition.

    Raises
    ------
    UserError
        If it is no component of a spectrum (pile-up), or fails when tried.
    """
    kinds = {"add": XspecAdditive, "mul": XspecMultiplicative, "con": XspecConvolution}
    if definition.kind not in kinds:
        raise UserError(f"XSPEC's {definition.name} acts on the response, not on a spectrum", remedy="leave it out")
    component = kinds[definition.kind](definition, settings)
    if check:
        component.check()
    return component
