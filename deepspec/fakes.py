"""Fake observations: a model seen by an instrument for some time, drawn, and written as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepspec import __version__
from deepspec import choices as chosen_by
from deepspec.assembly import make_model
from deepspec.choices import make_choices
from deepspec.errors import UserError
from deepspec.fluxes import ERG_PER_KEV, band_grid
from deepspec.io import read_observation, read_response
from deepspec.io.write import write_pha
from deepspec.models.base import Grid, Kind
from deepspec.models.model import Model
from deepspec.observation import Observation
from deepspec.parameters import ParameterSet
from deepspec.simulate import Simulation, simulate_observation
from deepspec.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class Fake:
    """A simulated observation and what it was made from.

    Attributes
    ----------
    simulation : Simulation
    model : str
    parameters : dict of str to float
    seed : int
    """

    simulation: Simulation
    model: str
    parameters: dict[str, float]
    seed: int

    @property
    def observation(self) -> Observation:
        """The simulated observation, ready for `deepspec.fit`."""
        return self.simulation.observation

    def write(self, path: str | Path, clobber: bool = False) -> tuple[Path, ...]:
        """Write the spectrum, and the background beside it; returns the files.

        Raises
        ------
        UserError
            A file is there already and `clobber` is False; the folder cannot be written to.
        """
        path = Path(path)
        if not clobber:
            refuse_existing(path, self.simulation.background is not None)
        # FITS keywords hold text of any length, but not any character.
        model = self.model.encode("ascii", "replace").decode()
        header = {"CREATOR": f"deepspec {__version__}", "SEED": self.seed, "MODEL": model}
        made = self.simulation
        return write_pha(path, made.counts, made.like, made.exposure, made.background, header)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        made = self.simulation
        return {
            "model": self.model,
            "parameters": self.parameters,
            "exposure": made.exposure,
            "counts": float(made.counts.sum()),
            "background_counts": None if made.background is None else float(made.background.sum()),
            "expected_source": float(made.expected.sum()),
            "expected_background": float(made.expected_background.sum()),
            "seed": self.seed,
            "notes": list(made.notes),
        }


def fake(
    model: str,
    like: str | Path | Observation | None = None,
    *,
    exposure: float | None = None,
    background: str = "like",
    seed: int | None = None,
    flux: str | None = None,
    abund: str = "wilm",
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    bkg: Any = None,
    rmf_dir: str | Path | None = None,
    row: int | None = None,
    **actions: Any,
) -> Fake:
    """Simulate an observation of a model.

    Parameters
    ----------
    model : str
    like : file name or Observation, optional
        What to imitate: response, background, exposure, scale factors. Without it give `rmf` and `exposure`.
    exposure : float, optional [s]
    background : {"like", "none"}
        Draw the background of `like` too, or leave it out.
    seed : int, optional
        Drawn and reported if not given.
    flux : str, optional
        "LO:HI=VALUE": scale all norms to this observed flux [erg cm^-2 s^-1].
    **actions
        ``set``, ``fix``, ``link`` as for `deepspec.fit`.

    Raises
    ------
    UserError
        Whatever of this cannot be done; one sentence.

    Examples
    --------
    >>> deepspec.fake("tbabs*powerlaw", "obs.pha", set={"PhoIndex": 1.7}, seed=1).write("fake.pha")  # doctest: +SKIP
    """
    chosen = make_choices(model=model, abund=abund, **actions)
    source = _source(make_model(model, abund), model)
    parameters, _ = chosen_by.apply_actions(ParameterSet(source.parameters), chosen.actions)
    if flux is not None:
        parameters = _with_flux(source, parameters, flux)
    observation = like if isinstance(like, Observation) else _imitated(like, exposure, arf, rmf, bkg, rmf_dir, row)
    seed = int(np.random.SeedSequence().entropy % 2**31) if seed is None else seed
    if seed < 0:
        raise UserError(f"the seed {seed} is negative", "--seed", "give a whole number from 0")
    rng = np.random.default_rng(seed)
    simulation = simulate_observation(observation, photons(source, parameters), exposure, background, rng)
    values = {key: parameters[key].value for key in parameters}
    return Fake(simulation, model, values, seed)


def photons(model: Model, parameters: ParameterSet) -> Callable[[Grid], torch.Tensor]:
    """The photon flux per bin at the present values, as a function of the grid."""
    values = parameters.expand(parameters.vector())
    return lambda grid: model.flux(grid, values).reshape(-1)


def _source(model: Model, text: str) -> Model:
    if model.kind is not Kind.ADDITIVE:
        raise UserError("a model needs a source of photons", f"model '{text}'", f"write {text}*powerlaw")
    return model


def _imitated(like, exposure, arf, rmf, bkg, rmf_dir, row) -> Observation:
    if like is not None:
        given = [bkg] if isinstance(bkg, str | Path) else list(bkg or ())
        return read_observation(like, row=row, arf=arf, rmf=rmf, background=given or None, rmf_dir=rmf_dir)
    if rmf is None or exposure is None:
        raise UserError("there is nothing to imitate", "--like", "give --like FILE, or --rmf FILE with --exposure")
    response = read_response(rmf, arf)
    channels = np.arange(response.n_channel) + response.first_channel
    flat = np.ones(response.n_channel)
    spectrum = Spectrum(channels, 0.0 * flat, exposure, flat, flat, np.zeros(len(flat), dtype=int))
    return Observation("fake", spectrum, response)


def _with_flux(model: Model, parameters: ParameterSet, text: str) -> ParameterSet:
    """All norms multiplied by one number, so that the band has the wanted observed flux."""
    source = f"--flux {text}"
    ends, equals, wanted = text.partition("=")
    if not equals:
        raise UserError("there is no flux in it", source, "write LO:HI=VALUE, for example 2:10=1e-12")
    grid, value = band_grid(*chosen_by.band(ends, source)), chosen_by.number(wanted, source)
    present = float((photons(model, parameters)(grid) * grid.middle).sum()) * ERG_PER_KEV
    if not (0 < value < np.inf and 0 < present < np.inf):
        raise UserError("no norm gives this flux", source, "give a positive flux, and a model that shines in the band")
    for key in model.norms:
        if not parameters[key].link:
            with chosen_by.option(source):
                parameters = parameters.set(key, parameters[key].value * value / present)
    parameters = chosen_by.follow_links(parameters)
    reached = float((photons(model, parameters)(grid) * grid.middle).sum()) * ERG_PER_KEV
    if abs(reached / value - 1.0) > 1e-6:
        raise UserError("the norms alone do not decide the flux of this model", source, "use --set instead")
    return parameters


def refuse_existing(path: str | Path, with_background: bool = True) -> None:
    """Refuse to write over a spectrum, or the background that would lie beside it."""
    path = Path(path)
    beside = [path.with_name(f"{path.name.split('.')[0]}_bkg.pha")] if with_background else []
    for file in (path, *beside):
        if file.exists():
            raise UserError("is there already", file, "choose another name, or add --clobber to write over it")
