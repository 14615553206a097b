"""Active galactic nuclei: open, obscured, and seen in reflection."""

from __future__ import annotations

from torch import Tensor

from deepspec.training.populations.base import Population
from deepspec.training.populations.bench import Bench
from deepspec.training.populations.priors import LogUniform, Uniform, chance, normal


class ActiveNucleus(Population):
    """Seyfert 1 galaxies, quasars and blazars."""

    name, share = "agn", 0.18
    why = (
        "Comptonising corona; soft excess as a black body or a second law; distant or blurred reflection; narrow and broad iron "
        "lines; cold partial and warm absorbers"
    )
    priors = {
        "z": LogUniform(0.002, 4.0),
        "index": normal(1.9, 0.25, 1.2, 3.0),
        "cut": LogUniform(60.0, 300.0),
        "has_body": chance(0.45),
        "body_kT": LogUniform(0.06, 0.25),
        "body_ratio": LogUniform(0.02, 3.0),
        "has_soft_law": chance(0.25),
        "soft_step": Uniform(0.5, 2.0),
        "soft_ratio": LogUniform(0.03, 3.0),
        "has_reflection": chance(0.4),
        "reflection": LogUniform(0.1, 3.0),
        "metals": LogUniform(0.01, 3.0),
        "blur": Uniform(0.0, 2.0),
        "has_line": chance(0.7),
        "line_sigma": LogUniform(0.01, 0.8),
        "line_width": LogUniform(0.02, 0.4),
        "has_hot_line": chance(0.2),
        "hot_line_energy": Uniform(6.65, 7.0),
        "hot_line_width": LogUniform(0.01, 0.1),
        "has_cover": chance(0.3),
        "cover_nH": LogUniform(0.02, 6.0),
        "cover": Uniform(0.2, 1.0),
        "has_warm": chance(0.35),
        "warm_nH": LogUniform(0.05, 5.0),
        "warm_log_xi": Uniform(0.3, 3.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        law = on.law(p["index"], p["cut"])
        at_line = on.at(law, 6.4)
        mirror = on.reflected(p["metals"], p["blur"]).mul_((p["has_reflection"] * p["reflection"])[:, None])
        soft_flux = on.flux(law, 0.5, 2.0)
        total = law.mul_(mirror.add_(1.0))
        body = on.unit(on.body(p["body_kT"]), 0.5, 2.0)
        total += body.mul_((p["has_body"] * p["body_ratio"])[:, None] * soft_flux)
        soft = on.unit(on.law(p["index"] + p["soft_step"]), 0.5, 2.0)
        total += soft.mul_((p["has_soft_law"] * p["soft_ratio"])[:, None] * soft_flux)
        on.add_line(total, p["has_line"] * p["line_width"] * at_line, 6.4, p["line_sigma"])
        hot = p["has_hot_line"] * p["hot_line_width"] * at_line
        on.add_line(total, hot, p["hot_line_energy"], 0.03 + 0.0 * hot)
        total *= on.covered(p["cover_nH"], p["has_cover"] * p["cover"])
        return total.mul_(on.warm(p["has_warm"] * p["warm_nH"], p["warm_log_xi"]))


class ObscuredNucleus(Population):
    """Seyfert 2 galaxies and obscured quasars."""

    name, share = "obscured", 0.13
    why = "Torus; scattering cone; fluorescence; photo-ionised gas; starburst; reflection"
    priors = {
        "z": LogUniform(0.001, 3.0),
        "index": normal(1.8, 0.25, 1.2, 2.8),
        "nH": LogUniform(0.3, 300.0),
        "has_second": chance(0.25),
        "second_nH": LogUniform(0.1, 30.0),
        "second_cover": Uniform(0.2, 1.0),
        "scattered": LogUniform(5e-4, 0.2),
        "scattered_step": normal(0.0, 0.3, -0.5, 1.5),
        "line_width": LogUniform(0.02, 0.4),
        "line_sigma": LogUniform(0.01, 0.15),
        "has_plasma": chance(0.4),
        "kT": LogUniform(0.15, 1.0),
        "metals": LogUniform(0.1, 2.0),
        "plasma_ratio": LogUniform(0.1, 20.0),
        "has_lines": chance(0.3),
        "log_xi": Uniform(0.5, 3.5),
        "lines_ratio": LogUniform(0.05, 3.0),
        "has_reflection": chance(0.45),
        "reflection": LogUniform(0.1, 2.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        law = on.law(p["index"])
        at_line = on.at(law, 6.4)
        scattered = on.law(p["index"] + p["scattered_step"]).mul_(p["scattered"][:, None])
        soft_flux = on.flux(scattered, 0.5, 2.0)
        mirror = on.reflected(1.0 + 0.0 * p["index"], 0.0 * p["index"])
        reflected = mirror.mul_((p["has_reflection"] * p["reflection"])[:, None]).mul_(law)
        total = law.mul_(on.transmission(p["nH"]))
        total *= on.covered(p["second_nH"], p["has_second"] * p["second_cover"])
        total += reflected
        on.add_line(total, p["line_width"] * at_line, 6.4, p["line_sigma"])
        on.add_line(total, 0.14 * p["line_width"] * at_line, 7.058, p["line_sigma"])
        plasma = on.unit(on.solar_plasma(on.plasma_bank.single(p["kT"]), p["metals"]), 0.5, 2.0)
        scattered += plasma.mul_((p["has_plasma"] * p["plasma_ratio"])[:, None] * soft_flux)
        lines = on.unit(on.photoionised(p["log_xi"]), 0.3, 10.0)
        return total.add_(scattered).add_(lines.mul_((p["has_lines"] * p["lines_ratio"])[:, None] * soft_flux))


class Reflection(Population):
    """Compton-thick nuclei: the torus seen in its own light."""

    name, share = "reflection", 0.03
    why = (
        "Hard hump and the whole set of cold fluorescent lines, tied to one reflector and its column; scattered light with all "
        "photo-ionised lines tied to one ionisation parameter; starburst; sometimes the nucleus shining through"
    )
    priors = {
        "z": LogUniform(0.0005, 1.0),
        "index": normal(1.8, 0.2, 1.2, 2.5),
        "metals": LogUniform(0.3, 3.0),
        "nH": LogUniform(0.05, 60.0),
        "line_width": LogUniform(0.3, 2.5),
        "light": LogUniform(0.5, 2.0),
        "scattered": LogUniform(1e-3, 0.5),
        "log_xi": Uniform(0.5, 4.0),
        "lines_ratio": LogUniform(0.1, 5.0),
        "has_plasma": chance(0.4),
        "kT": LogUniform(0.15, 1.2),
        "plasma_ratio": LogUniform(0.1, 10.0),
        "has_direct": chance(0.3),
        "direct": LogUniform(0.3, 10.0),
        "direct_nH": LogUniform(80.0, 500.0),
    }

    def spectrum(self, on: Bench, **p: Tensor) -> Tensor:
        law = on.law(p["index"])
        total = on.reflected(p["metals"], 0.0 * p["index"]).mul_(law)
        # scattered light is a share of what is reflected, by energy flux
        soft_flux = on.flux(total, 2.0, 10.0) * p["scattered"][:, None]
        total += on.fluorescent(p["light"]).mul_((p["line_width"] * on.at(total, 6.4))[:, None])
        total *= on.transmission(p["nH"])
        total += on.transmission(p["direct_nH"]).mul_(law).mul_((p["has_direct"] * p["direct"])[:, None])
        total += on.unit(law, 0.5, 2.0).mul_(soft_flux)
        total += on.unit(on.photoionised(p["log_xi"])).mul_(p["lines_ratio"][:, None] * soft_flux)
        plasma = on.solar_plasma(on.plasma_bank.single(p["kT"]), 0.0 * p["kT"] + 0.7)
        return total.add_(on.unit(plasma, 0.5, 2.0).mul_((p["has_plasma"] * p["plasma_ratio"])[:, None] * soft_flux))
