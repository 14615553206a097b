"""Profile likelihood: intervals where the statistic rises by delta (XSPEC's ``error``), and grids (``steppar``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.inference.maximum import MaximumOptions, minimise_from
from deepspec.problem import Problem


@dataclass(frozen=True)
class Interval:
    """Where the profile of one parameter has risen by delta.

    Attributes
    ----------
    name : str
    low, high : float
    low_reached, high_reached : bool
        False where a limit of the parameter stopped the search before the statistic had risen by delta.
    """

    name: str
    low: float
    high: float
    low_reached: bool
    high_reached: bool


@dataclass(frozen=True, eq=False)
class Profiles:
    """Intervals of several parameters, and a better minimum if the search came across one.

    Attributes
    ----------
    intervals : tuple of Interval
    better : Tensor or None
        Parameter vector of a minimum lower than the best fit by more than 0.01; fit again from there.
    """

    intervals: tuple[Interval, ...]
    better: Tensor | None


@dataclass(frozen=True, eq=False)
class StepGrid:
    """Profile over a grid of one or two parameters.

    Attributes
    ----------
    names : tuple of str
    axes : tuple of Tensor
    value : Tensor, shape (len(axis), ...): objective with all other parameters fitted.
    theta : Tensor, shape (len(axis), ..., P)
    better : Tensor or None, as in `Profiles`.
    """

    names: tuple[str, ...]
    axes: tuple[Tensor, ...]
    value: Tensor
    theta: Tensor
    better: Tensor | None


#: How far below the best fit a profile must come to count as a better minimum.
BETTER = 0.01
#: Grid points fitted together, and how often the grid is gone over.
BATCH, PASSES = 64, 3
#: A profile needs the statistic to 1e-4 only.
PROFILE_OPTIONS = MaximumOptions(steps=60, tolerance=1e-4)


def intervals(
    problem: Problem,
    best: Tensor,
    covariance: Tensor,
    names: Sequence[str] | None = None,
    delta: float = 1.0,
    options: MaximumOptions | None = None,
) -> Profiles:
    """Profile-likelihood intervals; both sides of all parameters are searched as one batch.

    Parameters
    ----------
    best : Tensor, shape (P,)
        The best fit.
    covariance : Tensor, shape (P, P)
        Sets the first steps; NaN rows are allowed.
    names : parameters, all free ones by default.
    delta : rise of the statistic: 1 for 68.3 %, 2.706 for 90 %.

    Notes
    -----
    The square root of the rise is close to linear in the parameter; a bracketed secant on it needs about five profiles a side.
    """
    keys = [problem.parameters.key(n) for n in (names or problem.names)]
    for key in keys:
        if key not in problem.names:
            raise UserError(
                f"{key} is not free, so it has no interval", remedy=f"free parameters: {', '.join(problem.names)}"
            )
    search = _SideSearch(problem, best, covariance, keys, delta, options or PROFILE_OPTIONS)
    with torch.no_grad():
        for _ in range(24):
            if not search.step():
                break
    return search.outcome()


class _SideSearch:
    """Bracketed root search on every side of every parameter at once; rows 2k and 2k+1 belong to parameter k."""

    def __init__(
        self, problem: Problem, best: Tensor, covariance: Tensor, keys: list[str], delta: float, options: MaximumOptions
    ):
        self.problem, self.best, self.keys, self.options = problem, best, keys, options
        self.target = delta**0.5
        columns = [problem.names.index(k) for k in keys]
        self.column = torch.tensor([c for c in columns for _ in range(2)])
        self.sign = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(len(keys))
        low, high = problem.parameters.bounds()
        self.centre = best[self.column]
        self.limit = torch.where(self.sign < 0, low[self.column], high[self.column])
        self.room = (self.limit - self.centre).abs()
        self.start = float(problem.objective(best))
        sigma = torch.diagonal(covariance)[self.column].sqrt()
        guess = 0.1 * self.centre.abs().clamp(min=1e-3)
        usable = torch.isfinite(sigma) & (sigma > 0)
        self.distance = torch.minimum(torch.where(usable, sigma * self.target, guess), self.room)
        self.shift = self._shift(covariance)
        self.inner, self.inner_root = torch.zeros_like(self.distance), torch.zeros_like(self.distance)
        self.outer = torch.full_like(self.distance, torch.inf)
        self.outer_root = torch.full_like(self.distance, torch.inf)
        self.theta = best.repeat(len(self.column), 1)
        self.done = self.room <= 0
        self.reached = torch.zeros_like(self.done)
        self.better: tuple[float, Tensor] | None = None

    def _shift(self, covariance: Tensor) -> Tensor:
        """How the other parameters follow, per unit of the stepped one, in the Gaussian approximation."""
        rows = covariance[self.column]
        own = rows.gather(1, self.column.unsqueeze(-1))
        return torch.nan_to_num(rows / own, nan=0.0, posinf=0.0, neginf=0.0)

    def step(self) -> bool:
        """One profile for every side still open; False when all are finished."""
        rows = torch.nonzero(~self.done).squeeze(-1)
        if not len(rows):
            return False
        value, theta = self._profile(rows)
        self._note_better(value, theta)
        rise = (value - self.start).clamp(min=0.0)
        root = torch.where(torch.isfinite(rise), rise.sqrt(), torch.full_like(rise, 1e6))
        self._bracket(rows, root, theta)
        return True

    def _profile(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        column = self.column[rows].unsqueeze(-1)
        place = self.centre[rows] + self.sign[rows] * self.distance[rows]
        moved = (place - self.theta[rows].gather(1, column).squeeze(-1)).unsqueeze(-1)
        low, high = self.problem.parameters.bounds()
        plain = self.theta[rows].scatter(1, column, place.unsqueeze(-1))
        shifted = (self.theta[rows] + self.shift[rows] * moved).clamp(low, high).scatter(1, column, place.unsqueeze(-1))
        # Where parameters are degenerate the Gaussian shift leads astray; the lower of the two begins.
        closer = self.problem.objective(shifted) < self.problem.objective(plain)
        start = torch.where(closer.unsqueeze(-1), shifted, plain)
        fixed = torch.zeros_like(start, dtype=torch.bool).scatter(1, column, True)
        theta, value, _ = minimise_from(self.problem, start, self.options, fixed)
        return value, theta

    def _note_better(self, value: Tensor, theta: Tensor) -> None:
        lowest = int(value.argmin())
        if float(value[lowest]) < self.start - BETTER and (
            self.better is None or float(value[lowest]) < self.better[0]
        ):
            self.better = (float(value[lowest]), theta[lowest].clone())

    def _bracket(self, rows: Tensor, root: Tensor, theta: Tensor) -> None:
        distance = self.distance[rows]
        near = (root - self.target).abs() < 2e-3 * self.target
        below = root < self.target
        self.inner[rows] = torch.where(below, distance, self.inner[rows])
        self.inner_root[rows] = torch.where(below, root, self.inner_root[rows])
        self.outer[rows] = torch.where(below, self.outer[rows], distance)
        self.outer_root[rows] = torch.where(below, self.outer_root[rows], root)
        self.theta[rows[below]] = theta[below]
        stopped = below & (distance >= self.room[rows] * (1 - 1e-12))
        narrow = (self.outer[rows] - self.inner[rows]) < 1e-9 * self.centre[rows].abs() + 1e-300
        self.reached[rows] = near | narrow | (self.reached[rows] & ~stopped)
        self.done[rows] = near | stopped | narrow
        inner, outer = self.inner[rows], self.outer[rows]
        span = (self.outer_root[rows] - self.inner_root[rows]).clamp(min=1e-12)
        secant = inner + (outer - inner) * ((self.target - self.inner_root[rows]) / span).clamp(0.1, 0.9)
        slope = distance * self.target / root.clamp(min=0.1 * self.target)
        grow = torch.minimum(slope.clamp(max=4.0 * distance).maximum(1.2 * distance), self.room[rows])
        following = torch.where(torch.isfinite(outer), secant, grow)
        self.distance[rows] = torch.where(self.done[rows], distance, following)

    def outcome(self) -> Profiles:
        place = self.centre + self.sign * torch.where(self.room <= 0, torch.zeros_like(self.distance), self.distance)
        reached = self.reached | torch.isfinite(self.outer)
        found = tuple(
            Interval(key, float(place[2 * k]), float(place[2 * k + 1]), bool(reached[2 * k]), bool(reached[2 * k + 1]))
            for k, key in enumerate(self.keys)
        )
        return Profiles(found, None if self.better is None else self.better[1])


def step_grid(
    problem: Problem,
    best: Tensor,
    axes: dict[str, Tensor],
    options: MaximumOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StepGrid:
    """Objective over a grid of one or two parameters, all others fitted at every point (XSPEC's ``steppar``).

    Parameters
    ----------
    best : Tensor, shape (P,)
    axes : dict of parameter name to Tensor of grid values, one or two entries.
    progress : callable, optional
        Told how many of how many profiles are done.

    Notes
    -----
    Points are fitted in batches of `BATCH`. A second pass starts every point from its best neighbour, so one bad start leaves no spike.
    """
    options = options or PROFILE_OPTIONS
    keys = [problem.parameters.key(n) for n in axes]
    for key in keys:
        if key not in problem.names:
            raise UserError(
                f"{key} is not free, so it cannot be stepped", remedy=f"free parameters: {', '.join(problem.names)}"
            )
    values = [torch.as_tensor(v, dtype=torch.float64) for v in axes.values()]
    mesh = torch.stack(torch.meshgrid(*values, indexing="ij"), dim=-1)
    shape, columns = mesh.shape[:-1], [problem.names.index(k) for k in keys]
    points = mesh.reshape(-1, len(keys))
    low, high = problem.parameters.bounds()
    for k, column in enumerate(columns):
        if (points[:, k] < low[column]).any() or (points[:, k] > high[column]).any():
            raise UserError(
                f"the grid of {keys[k]} leaves its limits {low[column]:g} to {high[column]:g}",
                remedy="step inside them",
            )
    start = best.repeat(len(points), 1)
    start[:, columns] = points
    fixed = torch.zeros_like(start, dtype=torch.bool)
    fixed[:, columns] = True
    tell = progress or (lambda done, total: None)
    total = PASSES * len(points)

    def fitted(start: Tensor, before: int) -> tuple[Tensor, Tensor]:
        parts = []
        for first in range(0, len(start), BATCH):
            rows = slice(first, first + BATCH)
            parts.append(minimise_from(problem, start[rows], options, fixed[rows])[:2])
            tell(before + min(first + BATCH, len(start)), total)
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    theta, value = fitted(start, 0)
    for turn in range(1, PASSES):
        start = _from_best_neighbour(theta, value, shape)
        start[:, columns] = points
        again, other = fitted(start, turn * len(points))
        improved = other < value - 1e-6
        theta = torch.where(improved.unsqueeze(-1), again, theta)
        value = torch.where(improved, other, value)
        if not improved.any():
            break
    tell(total, total)
    lowest = int(value.argmin())
    better = theta[lowest] if float(value[lowest]) < float(problem.objective(best)) - BETTER else None
    return StepGrid(tuple(keys), tuple(values), value.reshape(shape), theta.reshape(*shape, -1), better)


def _from_best_neighbour(theta: Tensor, value: Tensor, shape: Sequence[int]) -> Tensor:
    """For every grid point the solution of whichever neighbour is lowest, shape (B, P)."""
    grid, index = value.reshape(shape), torch.arange(len(value)).reshape(shape)
    lowest, source = torch.full_like(grid, torch.inf), index.clone()
    for axis in range(len(shape)):
        for shift in (1, -1):
            moved, where = grid.roll(shift, axis), index.roll(shift, axis)
            edge = [slice(None)] * len(shape)
            edge[axis] = 0 if shift == 1 else -1
            moved = moved.clone()
            moved[tuple(edge)] = torch.inf
            take = moved < lowest
            lowest, source = torch.where(take, moved, lowest), torch.where(take, where, source)
    return theta[source.reshape(-1)].clone()
