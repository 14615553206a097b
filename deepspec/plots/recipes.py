"""From the name of weights, or a fit, to a figure of the learned component: what `deepspec plot` and the documentation call."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.learned.checkpoint import read_weights
from deepspec.learned.finding import find_weights
from deepspec.learned.modules import load_decoder, load_oracle
from deepspec.plots.learned import plot_activation, plot_components, plot_latents, templates_of
from deepspec.plots.reconstruction import plot_reconstruction
from deepspec.problem import Problem

if TYPE_CHECKING:
    from deepspec.inference.posterior import PosteriorDraws

FORMATS = (".png", ".pdf", ".svg")
REFERENCE_COUNTS = 1e5
"""Counts at which the oracle is asked where a known source lies: enough that the prior does not decide."""


def components(weights: str | os.PathLike | None = None, most: int = 16) -> Figure:
    """The templates of weights; see `plot_components`.

    Parameters
    ----------
    weights : str or path, optional
        As `find_weights`.
    most : int
        Templates drawn.
    """
    return plot_components(load_decoder(read_weights(find_weights(weights))), most)


def latents(weights: str | os.PathLike | None = None, reach: float = 2.0, count: int = 9) -> Figure:
    """What each coordinate of weights does; see `plot_latents`."""
    return plot_latents(load_decoder(read_weights(find_weights(weights))), reach, count)


def activation(weights: str | os.PathLike | None = None, sources: int = 4000, seed: int = 0, most: int = 32) -> Figure:
    """Which class of source uses which template, from simulated sources that no training ever drew; see `plot_activation`.

    Parameters
    ----------
    weights : str or path, optional
        As `find_weights`.
    sources : int
        Of all classes together, in the shares of the populations.
    seed : int
    most : int
        Templates drawn.

    Raises
    ------
    UserError
        The weights have no templates, or no oracle to say where sources lie.
    """
    given = read_weights(find_weights(weights))
    decoder = load_decoder(given)
    templates_of(decoder)
    if (oracle := load_oracle(given)) is None:
        raise UserError(
            "these weights have no oracle, so where known sources lie in them is not known",
            given.path,
            "take weights as `deepspec train` wrote them",
        )
    if sources < 100:
        raise UserError(f"{sources} sources are too few for a mean of each class", "--sources", "give 100 or more")
    return plot_activation(decoder, _located(oracle, sources, seed), most)


def _located(oracle: torch.nn.Module, sources: int, seed: int) -> dict[str, np.ndarray]:
    """Where held-out sources lie, by class, shape (n, latent): the oracle's mean for their unabsorbed spectra."""
    from deepspec.training.sources import CLASS_NAMES, held_out

    drawn = held_out(sources, seed)
    nothing = torch.zeros(sources)
    with torch.no_grad():
        z, _ = oracle(drawn.shape, nothing + math.log(REFERENCE_COUNTS), nothing, nothing)
    found = {name: z[drawn.label == i].numpy() for i, name in enumerate(CLASS_NAMES)}
    return {name: values for name, values in found.items() if len(values)}


# --- a spectrum -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A figure, and how its bands were made."""

    figure: Figure
    draws: PosteriorDraws
    seed: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the bands must know."""
        if self.draws.settled:
            return ()
        return (
            f"the draws still remember where they began (correlation {self.draws.correlation:.2f}): the bands may be too narrow",
        )

    def __str__(self) -> str:
        made = self.draws
        return (
            f"bands: {len(made.theta)} draws from the posterior by tempered Monte Carlo around the best fit, seed {self.seed}; "
            f"{made.evaluations:,} likelihoods, {made.temperatures} temperatures, correlation left {made.correlation:.2f}"
        )


def reconstruction(
    problem: Problem,
    theta: Tensor,
    count: int = 512,
    seed: int = 0,
    min_sigma: float = 3.0,
    progress: Callable[[int], None] | None = None,
    **more,
) -> Reconstruction:
    """A fitted spectrum with bands from draws of its posterior; see `plot_reconstruction`, which `more` is handed to.

    Parameters
    ----------
    problem : Problem
    theta : Tensor, shape (P,)
        The best fit.
    count : int
        Draws.
    seed : int
    min_sigma : float
        As `plot_reconstruction`.
    progress : callable, optional
        Told how many likelihoods were computed.
    """
    from deepspec.inference.posterior import posterior_draws

    least = 10 * len(problem.names)
    if count < least:
        raise UserError(
            f"{count} draws are too few for {len(problem.names)} free parameters", "--draws", f"give {least} or more"
        )
    draws = posterior_draws(problem, theta, count, seed, progress)
    return Reconstruction(plot_reconstruction(problem, theta, draws.theta, min_sigma, **more), draws, seed)


def with_weights(model: str, weights: str | None) -> str:
    """`model` with its component deepspec read from `weights`.

    Raises
    ------
    UserError
        The model has no such component, or names weights itself.
    """
    if weights is None:
        return model
    found, count = re.subn(r"\bdeepspec\b(?!\s*\{)", lambda match: f"deepspec{{{find_weights(weights)}}}", model)
    if not count:
        raise UserError(
            f"the model {model} does not leave open which weights deepspec takes",
            "--weights",
            "drop --weights, or write deepspec without braces in --model",
        )
    return found


# --- files ----------------------------------------------------------------------------------------------------------


def check_target(path: str | os.PathLike) -> Path:
    """Refuse a file that no figure can be written to, before any work is done for it.

    Raises
    ------
    UserError
        An ending that is no known format, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError("this is no known kind of picture", path, f"end the name with {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise UserError("its folder does not exist", path, f"make it first: mkdir -p {path.parent}")
    return path


def save(figure: Figure, path: str | os.PathLike, dpi: float = 150) -> Path:
    """Write a figure beside its name, then move it there."""
    path = check_target(path)
    # Without the date the same figure gives the same file.
    metadata = (
        {"CreationDate": None}
        if path.suffix.lower() == ".pdf"
        else {"Date": None}
        if path.suffix.lower() == ".svg"
        else {}
    )
    with write_beside(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=metadata)
    return path
