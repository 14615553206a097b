"""The native components as Sherpa model classes: `dspowerlaw`, `dstbabs` and so on.

A class is made from its component when it is first asked for, and is an attribute of this module under the name of its
model type, so a saved session finds it again. "ds" keeps the names apart from Sherpa's own `powerlaw`, `bbody` and `edge`,
which mean something else.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from sherpa.astro import hc
from sherpa.models.model import RegriddableModel1D, modelCacher1d
from sherpa.models.parameter import Parameter as SherpaParameter

from deepspec.catalogue import present
from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Component, Grid, Kind, Parameter

PREFIX = "ds"

#: Bins may overlap by this part of their width, which is rounding in a response file.
_OVERLAP = 1e-4
#: Evaluations that a component keeps: two grids, each with a step in every one of a few parameters.
_KEPT = 10

_process = os.getpid()


class NativeModel(RegriddableModel1D):
    """A native component on energy bins (keV) or, in wavelength analysis, bins in Angstrom that run downwards.

    Additive components return photon cm^-2 s^-1 per bin, multiplicative ones the factor.

    Class attributes
    ----------------
    component : Component
    """

    component: ClassVar[Component]

    def __init__(self, name: str = ""):
        name = name or type(self).__name__
        described = list(self.component.parameters)
        if self.component.kind is Kind.ADDITIVE:
            described.append(self.component.norm)
        made = tuple(_parameter(name, parameter) for parameter in described)
        for parameter in made:
            setattr(self, parameter.name, parameter)
        super().__init__(name, made)
        self.cache = _KEPT

    @modelCacher1d
    def calc(self, p, xlo, xhi=None, *args, **kwargs):
        """Value per bin, shape (n,).

        Parameters
        ----------
        p : sequence of float
            All parameters, in order.
        xlo, xhi : ndarray, shape (n,)

        Raises
        ------
        UserError
            No bins but points, bins that overlap, or a value that is not finite: Sherpa's statistics would take
            it for a fit.
        """
        if xhi is None:
            raise UserError(
                "the data have points, and this component needs bins", self.name, "use PHA data or a binned grid"
            )
        _one_thread_after_fork()
        grid, use = _grid(_bytes(xlo), _bytes(xhi))
        names = [parameter.name for parameter in self.component.parameters]
        values = {n: torch.tensor([v], dtype=torch.float64) for n, v in zip(names, p, strict=False)}
        with torch.no_grad():
            result = self.component.evaluate(grid, **values).expand(len(grid)).numpy()[use]
        if self.component.kind is Kind.ADDITIVE:
            result = result * p[-1]
        if not np.isfinite(result).all():
            listed = ", ".join(f"{n}={v:g}" for n, v in zip(names, p, strict=False))
            raise UserError(f"the value is not finite at {listed}", self.name, "narrow the limits of its parameters")
        return np.array(result)

    def guess(self, dep, *args, **kwargs):
        """Set the norm so that the component alone has as many photons as the data (called by Sherpa's ``guess``)."""
        if self.component.kind is not Kind.ADDITIVE or len(args) < 2:
            return
        expected = self.calc([*[parameter.val for parameter in self.pars[:-1]], 1.0], args[0], args[1]).sum()
        observed = float(np.sum(dep * np.abs(args[1] - args[0])))
        if expected > 0 and observed > 0:
            self.pars[-1].val = float(np.clip(observed / expected, self.pars[-1].min, self.pars[-1].max))


def _parameter(model: str, described: Parameter) -> SherpaParameter:
    """Sherpa's parameter with the same value, limits and unit."""
    return SherpaParameter(
        model,
        described.name,
        described.default,
        described.soft_min,
        described.soft_max,
        described.hard_min,
        described.hard_max,
        units=described.unit,
        frozen=described.frozen or described.switch,
        alwaysfrozen=described.switch,
    )


# --- grids ----------------------------------------------------------------------------------------------------------


def _bytes(limits: np.ndarray) -> bytes:
    """Limits of bins as something a cache can be asked for."""
    return np.asarray(limits, dtype=np.float64).tobytes()


@lru_cache(maxsize=16)
def _grid(low: bytes, high: bytes) -> tuple[Grid, np.ndarray | slice]:
    """A grid without gaps that holds the given bins, and which of its bins they are.

    While Sherpa fits, it passes only the energies that reach a noticed channel, so a grid may have gaps.
    """
    below, above = np.frombuffer(low), np.frombuffer(high)
    if below[0] > below[-1]:
        # Wavelengths; Sherpa made them with this very constant. Bins that run down in wavelength run up in energy.
        below, above = hc / above, hc / below
    gap = below[1:] - above[:-1]
    slack = _OVERLAP * np.minimum(above[1:] - below[1:], above[:-1] - below[:-1])
    if (above <= below).any() or (gap < -slack).any():
        raise UserError("the bins overlap or run backwards", "energy grid", "use rising bins, each with low below high")
    after = np.flatnonzero(gap > slack) + 1
    edges = np.append(below, above[-1])
    if not len(after):
        return Grid(edges), slice(None)
    fillers = after + np.arange(len(after))
    edges = np.insert(edges, after, above[after - 1])
    return Grid(edges), np.delete(np.arange(len(edges) - 1), fillers)


def _one_thread_after_fork() -> None:
    """Sherpa's conf and proj fork, and a child that uses torch's thread pool of its parent hangs."""
    global _process
    if os.getpid() != _process:
        torch.set_num_threads(1)
        _process = os.getpid()


# --- classes and their registration ---------------------------------------------------------------------------------


def names() -> list[str]:
    """The model types: every additive or multiplicative native component."""
    return [PREFIX + component.name for component in present() if component.kind is not Kind.CONVOLUTION]


def __getattr__(name: str) -> type[NativeModel]:
    short = name.removeprefix(PREFIX)
    if short == name or short not in COMPONENTS or COMPONENTS[short].kind is Kind.CONVOLUTION:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    found = COMPONENTS[short]
    body = {"component": found(), "__module__": __name__, "__doc__": found.__doc__}
    globals()[name] = made = type(name, (NativeModel,), body)
    return made


def register(session: Any = None) -> list[str]:
    """Make every native component a model type of a Sherpa session.

    May be called again, for example after ``ui.clean()``.

    Parameters
    ----------
    session : sherpa.astro.ui, or a Session, optional
        The session of ``sherpa.astro.ui`` unless given.

    Returns
    -------
    list of str
        The model types: "dspowerlaw", "dstbabs", ...

    Raises
    ------
    UserError
        The session has another model type of the same name; nothing is registered then.
    """
    if session is None:
        from sherpa.astro import ui as session
    classes = {name: _class(name) for name in names()}
    known = getattr(session, "_session", session)._model_types
    taken = [n for n, made in classes.items() if n in known and known[n].modeltype is not made]
    if taken:
        raise UserError(
            f"the session has model types of its own called {', '.join(taken)}",
            "register",
            "register deepspec's components before defining others",
        )
    for name, made in classes.items():
        if name not in known:
            session.add_model(made)
    return list(classes)


def _class(name: str) -> type[NativeModel]:
    return globals().get(name) or __getattr__(name)
