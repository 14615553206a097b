"""Stars, accreting white dwarfs and other soft compact sources."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.training.populations.base import Population
from deepspec.training.populations.bench import Bench, abundance
from deepspec.training.populations.priors import LogUniform, Normal, Uniform, chance, normal


class Star(Population):
    """Coronae of cool stars, winds of hot ones, young stars."""

    name, share = "star", 0.16
    why = (
        "Two or three temperatures or a broad distribution; metals from a twentieth of solar to above; noble gases up to ten times "
        "iron (inverse FIP effect) or below it; circumstellar absorption"
    )
    priors = {
        "kT": LogUniform(0.1, 0.9),
        "kT_ratio": LogUniform(1.5, 6.0),
        "ratio": LogUniform(0.1, 5.0),
        "has_hot": chance(0.25),
        "hot_kT": LogUniform(1.5, 8.0),
        "hot_ratio": LogUniform(0.05, 3.0),
        "is_broad": chance(0.25),
        "width": LogUniform(0.12, 1.0),
        "iron": LogUniform(0.05, 1.5),
        "fip": normal(0.15, 0.3, -0.5, 1.0),
        "neon": Normal(-1.5, 1.5, 1, 0.2, 0.4),
        "scatter": Normal(-3.0, 3.0, 12, 0.0, 1.0),
        "has_absorber": chance(0.15),
        "nH": LogUniform(0.05, 3.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        bank = on.plasma_bank
        second = p["kT"] * p["kT_ratio"]
        rows = torch.where(
            p["is_broad"][:, None] > 0,
            bank.spread(torch.sqrt(p["kT"] * second), p["width"]),
            bank.single(p["kT"]) + p["ratio"][:, None] * bank.single(second),
        )
        rows += (p["has_hot"] * p["hot_ratio"])[:, None] * bank.single(p["hot_kT"])
        # elements with a high first ionisation potential, relative to iron
        high = torch.pow(10.0, p["fip"])
        noble = {
            "C": high.sqrt(),
            "N": high,
            "O": high,
            "Ne": high * torch.exp(p["neon"]),
            "Ar": high,
            "S": high.sqrt(),
        }
        metals = abundance(p["iron"], **noble) * torch.exp(0.15 * p["scatter"])
        return on.plasma(rows, metals).mul_(on.transmission(p["has_absorber"] * p["nH"]))


class Cataclysmic(Population):
    """Accreting white dwarfs: polars, intermediate polars, dwarf novae, symbiotic stars."""

    name, share = "cv", 0.06
    why = "Column that cools from its shock; curtain that covers a part; fluorescence of the surface; heated cap"
    priors = {
        "kT": LogUniform(3.0, 40.0),
        "is_column": chance(0.5),
        "slope": Uniform(0.3, 2.5),
        "has_cool": chance(0.4),
        "cool_kT": LogUniform(0.15, 2.0),
        "cool_ratio": LogUniform(0.01, 0.5),
        "metals": LogUniform(0.1, 1.5),
        "scatter": Normal(-3.0, 3.0, 12, 0.0, 1.0),
        "line_width": LogUniform(0.02, 0.3),
        "has_cover": chance(0.6),
        "cover": Uniform(0.3, 1.0),
        "nH": LogUniform(0.2, 30.0),
        "has_cap": chance(0.3),
        "cap_kT": LogUniform(0.02, 0.1),
        "cap_ratio": LogUniform(0.02, 20.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        bank = on.plasma_bank
        rows = torch.where(p["is_column"][:, None] > 0, bank.falling(p["kT"], p["slope"]), bank.single(p["kT"]))
        rows += (p["has_cool"] * p["cool_ratio"])[:, None] * bank.single(p["cool_kT"])
        total = on.unit(on.plasma(rows, abundance(p["metals"]) * torch.exp(0.2 * p["scatter"])))
        on.add_line(total, p["line_width"] * on.at(total, 6.3), 6.4, 0.03 + 0.0 * p["kT"])
        total *= on.covered(p["nH"], p["has_cover"] * p["cover"])
        return total.add_(on.unit(on.body(p["cap_kT"])).mul_((p["has_cap"] * p["cap_ratio"])[:, None]))


class SuperSoft(Population):
    """White dwarfs that burn hydrogen, novae after their outburst, stars torn apart by a black hole."""

    name, share = "supersoft", 0.05
    why = "Nuclear burning or a young disc, with edges of a hot atmosphere; weak shocked gas, lines or a corona"
    priors = {
        "is_disk": chance(0.3),
        "kT": LogUniform(0.025, 0.15),
        "has_edges": chance(0.5),
        "edge": Uniform(0.45, 1.0),
        "edge_depth": LogUniform(0.1, 5.0),
        "oxygen_depth": LogUniform(0.05, 3.0),
        "has_law": chance(0.5),
        "index": normal(2.2, 0.6, 0.8, 4.0),
        "law_ratio": LogUniform(1e-5, 0.2),
        "has_plasma": chance(0.4),
        "plasma_kT": LogUniform(0.15, 2.0),
        "plasma_ratio": LogUniform(1e-4, 0.3),
        "has_lines": chance(0.15),
        "log_xi": Uniform(0.3, 2.5),
        "lines_ratio": LogUniform(1e-3, 1.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        total = torch.where(p["is_disk"][:, None] > 0, on.disk(p["kT"]), on.body(p["kT"]))
        edges = p["has_edges"][:, None] * (
            _edge(on, p["edge"], p["edge_depth"]) + _edge(on, 0.871 + 0.0 * p["kT"], p["oxygen_depth"])
        )
        total = on.unit(total.mul_(torch.exp(-edges)))
        total += on.unit(on.law(p["index"])).mul_((p["has_law"] * p["law_ratio"])[:, None])
        plasma = on.solar_plasma(on.plasma_bank.single(p["plasma_kT"]), 1.0 + 0.0 * p["kT"])
        total += on.unit(plasma).mul_((p["has_plasma"] * p["plasma_ratio"])[:, None])
        return total.add_(on.unit(on.photoionised(p["log_xi"])).mul_((p["has_lines"] * p["lines_ratio"])[:, None]))


def _edge(on: Bench, energy: Tensor, depth: Tensor) -> Tensor:
    """Optical depth of an absorption edge, depth (E / edge)^-3 above it; (m, n)."""
    ratio = on.energy / energy[:, None]
    # a bin that holds the edge takes its share of it
    above = ((ratio - 1.0) / 0.0071 + 0.5).clamp(0.0, 1.0)
    return depth[:, None] * above / (ratio.square() * ratio).clamp(min=0.5)
