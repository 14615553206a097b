"""Neutron stars and black holes of stellar mass, and plain power laws."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.training.populations.base import Population
from deepspec.training.populations.bench import Bench
from deepspec.training.populations.priors import LogUniform, Uniform, chance, normal


class Binary(Population):
    """X-ray binaries of every kind, ultraluminous sources."""

    name, share = "binary", 0.11
    why = (
        "Disc, corona fed by it (the law turns over below the seed photons), boundary layer; accretion columns of pulsars; wind or "
        "bulge that covers a part; iron line, reflection; gas around"
    )
    priors = {
        "has_disk": chance(0.75),
        "Tin": LogUniform(0.1, 2.5),
        "disk_ratio": LogUniform(0.03, 30.0),
        "is_pulsar": chance(0.2),
        "index": normal(1.9, 0.5, 0.8, 4.0),
        "hard_index": Uniform(-0.5, 1.5),
        "cut": LogUniform(4.0, 200.0),
        "has_seed": chance(0.4),
        "has_body": chance(0.4),
        "kT": LogUniform(0.15, 3.0),
        "body_ratio": LogUniform(0.03, 10.0),
        "has_line": chance(0.35),
        "line_energy": Uniform(6.4, 6.97),
        "line_sigma": LogUniform(0.01, 0.8),
        "line_width": LogUniform(0.01, 0.6),
        "has_reflection": chance(0.2),
        "reflection": LogUniform(0.1, 3.0),
        "metals": LogUniform(0.01, 3.0),
        "blur": Uniform(0.0, 2.0),
        "has_cover": chance(0.2),
        "cover": Uniform(0.4, 1.0),
        "nH": LogUniform(0.3, 60.0),
        "has_gas": chance(0.12),
        "gas_kT": LogUniform(0.2, 1.5),
        "gas_ratio": LogUniform(0.003, 0.3),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        law = on.law(torch.where(p["is_pulsar"] > 0, p["hard_index"], p["index"]), p["cut"])
        # photons below the seeds' energy are rare: a smooth turn-over at 2 Tin
        seed = (on.energy / (2.0 * p["Tin"])[:, None]).square_()
        law *= torch.where(p["has_seed"][:, None] > 0, seed.div_(1.0 + seed), 1.0)
        total = on.unit(law)
        mirror = on.reflected(p["metals"], p["blur"]).mul_((p["has_reflection"] * p["reflection"])[:, None])
        total *= mirror.add_(1.0)
        total += on.unit(on.disk(p["Tin"])).mul_((p["has_disk"] * p["disk_ratio"])[:, None])
        total += on.unit(on.body(p["kT"])).mul_((p["has_body"] * p["body_ratio"])[:, None])
        photons = p["has_line"] * p["line_width"] * on.at(total, 6.3)
        on.add_line(total, photons, p["line_energy"], p["line_sigma"])
        total *= on.covered(p["nH"], p["has_cover"] * p["cover"])
        gas = on.unit(on.solar_plasma(on.plasma_bank.single(p["gas_kT"]), 1.0 + 0.0 * p["kT"]))
        return total.add_(gas.mul_((p["has_gas"] * p["gas_ratio"])[:, None]))


class NeutronStar(Population):
    """Pulsars and their nebulae, cooling neutron stars, magnetars."""

    name, share = "neutron", 0.05
    why = "Cooling surface, hot spot, magnetosphere or wind nebula; cyclotron-like troughs of the nearby cooling ones"
    priors = {
        "kT": LogUniform(0.04, 0.7),
        "has_spot": chance(0.4),
        "spot_ratio_kT": LogUniform(1.3, 4.0),
        "spot_ratio": LogUniform(0.02, 3.0),
        "has_law": chance(0.75),
        "index": normal(1.8, 0.6, 0.4, 4.0),
        "law_ratio": LogUniform(0.003, 50.0),
        "has_trough": chance(0.15),
        "trough": Uniform(0.25, 1.3),
        "trough_width": LogUniform(0.04, 0.25),
        "trough_depth": LogUniform(0.1, 2.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        total = on.unit(on.body(p["kT"]))
        spot = on.unit(on.body(p["kT"] * p["spot_ratio_kT"]))
        total += spot.mul_((p["has_spot"] * p["spot_ratio"])[:, None])
        away = (on.energy - p["trough"][:, None]).div_(p["trough_width"][:, None])
        depth = (p["has_trough"] * p["trough_depth"])[:, None]
        total *= away.square_().mul_(-0.5).exp_().mul_(-depth).exp_()
        return total.add_(on.unit(on.law(p["index"])).mul_((p["has_law"] * p["law_ratio"])[:, None]))


class Plain(Population):
    """Laws far outside the usual ranges: anything else; keeps the prior wide."""

    name, share = "plain", 0.05
    why = "No physics: slopes of any sign, cut off or bent either way, so that the latent space has no walls near real sources"
    priors = {
        "index": Uniform(-1.5, 5.0),
        "has_cut": chance(0.3),
        "cut": LogUniform(2.0, 30.0),
        "has_second": chance(0.3),
        "second_index": Uniform(-1.5, 5.0),
        "second_ratio": LogUniform(0.03, 30.0),
        "has_absorber": chance(0.15),
        "nH": LogUniform(0.03, 30.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        cut = torch.where(p["has_cut"] > 0, p["cut"], 1e6)
        total = on.unit(on.law(p["index"], cut, p["has_absorber"] * p["nH"]))
        return total.add_(on.unit(on.law(p["second_index"])).mul_((p["has_second"] * p["second_ratio"])[:, None]))
