"""Kinds of X-ray sources: one block per class, each a documented prior over physical parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from deepspec.errors import UserError
from deepspec.learned.grids import ENERGY_WEIGHTS
from deepspec.registry import did_you_mean
from deepspec.training.populations.active import ActiveNucleus, ObscuredNucleus, Reflection
from deepspec.training.populations.base import FLOOR, Population, Sources
from deepspec.training.populations.compact import Binary, NeutronStar, Plain
from deepspec.training.populations.extended import Diffuse, HotGas, Remnant
from deepspec.training.populations.stellar import Cataclysmic, Star, SuperSoft

POPULATIONS: dict[str, type[Population]] = {
    kind.name: kind
    for kind in (
        ActiveNucleus,
        ObscuredNucleus,
        Reflection,
        Star,
        Binary,
        Cataclysmic,
        SuperSoft,
        NeutronStar,
        Remnant,
        HotGas,
        Diffuse,
        Plain,
    )
}
"""Every class by name; a new one is a block in a file of this folder and a line here."""
CLASS_NAMES: tuple[str, ...] = tuple(POPULATIONS)
"""Names in the order of the labels."""


def class_shares(shares: Mapping[str, float] | None = None) -> torch.Tensor:
    """Share of every class, sum 1, in the order of `CLASS_NAMES`.

    Parameters
    ----------
    shares : mapping of name to number, optional
        In place of the defaults; classes that are not named take no part.

    Raises
    ------
    UserError
        An unknown class, a negative share, or nothing above 0.
    """
    given = {name: kind.share for name, kind in POPULATIONS.items()} if shares is None else dict(shares)
    for name, share in given.items():
        if name not in POPULATIONS:
            raise UserError(f"unknown class of sources '{name}'", remedy=did_you_mean(name, POPULATIONS))
        if not 0.0 <= float(share) < float("inf"):
            raise UserError(f"the share of '{name}' is {share}", remedy="give 0 or a positive number")
    values = torch.tensor([float(given.get(name, 0.0)) for name in CLASS_NAMES], dtype=torch.float64)
    if float(values.sum()) <= 0.0:
        raise UserError("no class of sources has a share", remedy=f"name one or more of: {', '.join(CLASS_NAMES)}")
    return values / values.sum()


def draw(
    n: int,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
    shares: Mapping[str, float] | None = None,
) -> Sources:
    """Draw sources: class, physical parameters and unabsorbed spectrum.

    Parameters
    ----------
    n : int
    generator : torch.Generator
        All randomness comes from it; the same state gives the same sources.
    device : str or torch.device
        Where spectra are built and left.
    shares : mapping of class name to number, optional
        As `class_shares`.

    Returns
    -------
    Sources

    Raises
    ------
    UserError
        As `class_shares`.
    """
    probability = class_shares(shares).to(generator.device)
    label = torch.multinomial(probability, n, replacement=True, generator=generator).to(device)
    shape = torch.empty((n, len(ENERGY_WEIGHTS)), device=device)
    parameters = {}
    for index, (name, kind) in enumerate(POPULATIONS.items()):
        rows = (label == index).nonzero().squeeze(-1)
        if len(rows):
            spectrum, parameters[name] = kind().draw(len(rows), generator, device)
            shape[rows] = normalised(spectrum)
    return Sources(shape, label, parameters)


def normalised(spectrum: torch.Tensor) -> torch.Tensor:
    """Photons per unit ln E of any scale to photons per bin with unit energy flux, `FLOOR` added; (m, 600), in place."""
    weights = torch.as_tensor(ENERGY_WEIGHTS).to(spectrum)
    band = (weights > 0).to(spectrum)
    largest = (spectrum * band).amax(-1, keepdim=True)
    # outside the band a spectrum may run away; nothing may overflow
    spectrum = spectrum.div_(largest).clamp_(max=1e6).add_(FLOOR)
    return spectrum.div_((spectrum @ weights).unsqueeze(-1))


__all__ = ["CLASS_NAMES", "FLOOR", "POPULATIONS", "Population", "Sources", "class_shares", "draw", "normalised"]
