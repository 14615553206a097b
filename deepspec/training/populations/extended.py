"""Hot gas: supernova remnants, galaxies and clusters, and the sky itself."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.training.populations.base import Population
from deepspec.training.populations.bench import Bench, abundance
from deepspec.training.populations.priors import LogUniform, Normal, Uniform, chance, normal

GROUPS_OF_ELEMENTS = {"light": ("C", "N", "O", "Ne", "Mg"), "middle": ("Si", "S", "Ar", "Ca"), "iron": ("Fe", "Ni")}


def _by_groups(metals: Tensor, **groups: Tensor) -> Tensor:
    """Abundances (m, 12): `metals` times a factor for each of `GROUPS_OF_ELEMENTS`."""
    return abundance(metals, **{element: groups[g] for g, names in GROUPS_OF_ELEMENTS.items() for element in names})


class Remnant(Population):
    """Supernova remnants and their ejecta, superbubbles."""

    name, share = "remnant", 0.07
    why = (
        "Shocked gas with swept-up or ejecta abundances; ions that lag behind the electrons or are ahead of them; broad "
        "distributions of temperature; a second, cooler shock; synchrotron rims; charge exchange"
    )
    priors = {
        "kT": LogUniform(0.15, 5.0),
        "width": LogUniform(0.12, 0.8),
        "is_lagging": chance(0.5),
        "ion_ratio": LogUniform(0.15, 2.5),
        "ion_width": LogUniform(0.12, 1.0),
        "has_cool": chance(0.4),
        "cool_kT": LogUniform(0.12, 0.8),
        "cool_ratio": LogUniform(0.05, 10.0),
        "metals": LogUniform(0.15, 3.0),
        "light": LogUniform(0.3, 4.0),
        "middle": LogUniform(0.3, 10.0),
        "iron": LogUniform(0.1, 10.0),
        "scatter": Normal(-3.0, 3.0, 12, 0.0, 1.0),
        "has_law": chance(0.35),
        "index": normal(2.5, 0.5, 1.3, 4.0),
        "law_ratio": LogUniform(0.03, 10.0),
        "has_exchange": chance(0.08),
        "log_xi": Uniform(0.4, 2.0),
        "exchange_ratio": LogUniform(0.01, 0.5),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        bank = on.plasma_bank
        electrons = bank.spread(p["kT"], p["width"])
        cool = (p["has_cool"] * p["cool_ratio"])[:, None] * bank.single(p["cool_kT"])
        ions = bank.spread((p["kT"] * p["ion_ratio"]).clamp(min=0.1), p["ion_width"])
        ions = torch.where(p["is_lagging"][:, None] > 0, ions, electrons)
        metals = _by_groups(p["metals"], light=p["light"], middle=p["middle"], iron=p["iron"])
        metals = metals * torch.exp(0.25 * p["scatter"])
        total = on.unit(on.plasma(electrons + cool, metals, ions + cool))
        total += on.unit(on.law(p["index"])).mul_((p["has_law"] * p["law_ratio"])[:, None])
        exchange = on.unit(on.photoionised(p["log_xi"]))
        return total.add_(exchange.mul_((p["has_exchange"] * p["exchange_ratio"])[:, None]))


class HotGas(Population):
    """Clusters, groups, elliptical and star-forming galaxies."""

    name, share = "gas", 0.07
    why = "Gas in a potential with a cool core or many phases; iron and alpha elements apart; binaries or a nucleus within"
    priors = {
        "z": LogUniform(0.0005, 1.5),
        "kT": LogUniform(0.25, 15.0),
        "is_broad": chance(0.3),
        "width": LogUniform(0.12, 0.7),
        "has_second": chance(0.5),
        "second_ratio_kT": LogUniform(0.15, 0.8),
        "second_ratio": LogUniform(0.01, 1.0),
        "metals": LogUniform(0.1, 2.0),
        "light": LogUniform(0.4, 3.0),
        "middle": LogUniform(0.5, 2.5),
        "scatter": Normal(-3.0, 3.0, 12, 0.0, 1.0),
        "has_law": chance(0.3),
        "index": normal(1.7, 0.3, 0.8, 3.0),
        "law_ratio": LogUniform(0.02, 5.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        bank = on.plasma_bank
        rows = torch.where(p["is_broad"][:, None] > 0, bank.spread(p["kT"], p["width"]), bank.single(p["kT"]))
        second = bank.single((p["kT"] * p["second_ratio_kT"]).clamp(min=0.1))
        rows += (p["has_second"] * p["second_ratio"])[:, None] * second
        metals = _by_groups(p["metals"], light=p["light"], middle=p["middle"], iron=1.0 + 0.0 * p["metals"])
        total = on.unit(on.plasma(rows, metals * torch.exp(0.15 * p["scatter"])))
        return total.add_(on.unit(on.law(p["index"])).mul_((p["has_law"] * p["law_ratio"])[:, None]))


class Diffuse(Population):
    """The sky itself and what fills the field of view, as extended regions show it."""

    name, share = "diffuse", 0.04
    why = (
        "Local hot bubble and halo of 0.1-0.3 keV with lines of charge exchange; cosmic background; gas of a cluster or remnant "
        "in front of all; what flares of soft protons leave"
    )
    priors = {
        "local_kT": LogUniform(0.07, 0.14),
        "halo_kT": LogUniform(0.15, 0.35),
        "halo_ratio": LogUniform(0.1, 10.0),
        "has_corona": chance(0.3),
        "corona_kT": LogUniform(0.5, 1.0),
        "corona_ratio": LogUniform(0.02, 1.0),
        "index": normal(1.45, 0.1, 1.1, 1.8),
        "background_ratio": LogUniform(0.03, 30.0),
        "has_exchange": chance(0.2),
        "log_xi": Uniform(0.4, 2.0),
        "exchange_ratio": LogUniform(0.02, 1.0),
        "has_gas": chance(0.6),
        "kT": LogUniform(0.4, 12.0),
        "width": LogUniform(0.12, 0.7),
        "metals": LogUniform(0.1, 2.0),
        "scatter": Normal(-3.0, 3.0, 12, 0.0, 1.0),
        "gas_ratio": LogUniform(0.03, 100.0),
        "has_protons": chance(0.2),
        "proton_index": Uniform(-0.5, 1.2),
        "proton_ratio": LogUniform(0.05, 3.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        bank = on.plasma_bank
        rows = bank.single(p["local_kT"]) + p["halo_ratio"][:, None] * bank.single(p["halo_kT"])
        rows += (p["has_corona"] * p["corona_ratio"])[:, None] * bank.single(p["corona_kT"])
        total = on.unit(on.solar_plasma(rows, 1.0 + 0.0 * p["kT"]))
        lines = on.unit(on.photoionised(p["log_xi"]))
        total += lines.mul_((p["has_exchange"] * p["exchange_ratio"])[:, None])
        background = on.unit(on.law(p["index"])).mul_(p["background_ratio"][:, None])
        protons = on.unit(on.law(p["proton_index"]))
        background += protons.mul_((p["has_protons"] * p["proton_ratio"] * p["background_ratio"])[:, None])
        metals = abundance(p["metals"]) * torch.exp(0.3 * p["scatter"])
        gas = on.unit(on.plasma(bank.spread(p["kT"], p["width"]), metals))
        return total.add_(background).add_(gas.mul_((p["has_gas"] * p["gas_ratio"])[:, None]))
