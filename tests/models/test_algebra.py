"""Expressions evaluate as written, and their derivatives are exact."""

import pytest
import torch

from deepspec.models.base import Grid
from deepspec.models.model import Model
from deepspec.parameters import ParameterSet

EXPRESSIONS = [
    "powerlaw",
    "tbabs*powerlaw",
    "tbabs*(powerlaw+bbody)",
    "constant*(tbabs*powerlaw+phabs*(bbody+gaussian))",
    "pcfabs*tbabs*(diskbb+powerlaw)*edge",
    "zashift*powerlaw",
    "tbabs*zashift*(tbabs*powerlaw+gaussian)",
    "tbabs*cflux*(powerlaw+bbody)",
    "zashift(cflux(powerlaw))",
]


def setup(text):
    model = Model(text)
    chosen = ParameterSet(model.parameters)
    for key in chosen:
        name = key.rpartition(".")[2]
        chosen = chosen.set(
            key, {"Redshift": 0.3, "nH": 0.4, "Sigma": 0.2, "lg10Flux": -11.5}.get(name, chosen[key].value)
        )
        if not chosen[key].parameter.switch and name not in ("Emin", "Emax"):
            chosen = chosen.thaw(key)
    return model, chosen


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_derivatives_against_differences(text):
    model, chosen = setup(text)
    grid = Grid(torch.linspace(0.4, 9.0, 120, dtype=torch.float64))
    theta = chosen.vector().unsqueeze(0)
    names = list(chosen.free)
    flux, slopes = model.flux_and_derivatives(grid, chosen.expand(theta), names)
    assert slopes.shape == (1, len(names), 119)
    torch.testing.assert_close(flux, model.flux(grid, chosen.expand(theta)), rtol=1e-12, atol=0)
    for i, name in enumerate(names):
        step = 1e-5 * max(abs(float(theta[0, i])), 0.1)
        up, down = theta.clone(), theta.clone()
        up[0, i] += step
        down[0, i] -= step
        expected = (model.flux(grid, chosen.expand(up)) - model.flux(grid, chosen.expand(down))) / (2 * step)
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            slopes[:, i],
            expected,
            rtol=1e-4,
            atol=2e-5 * scale + 1e-9 * float(flux.max()),
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_batch_is_its_members(text):
    model, chosen = setup(text)
    grid = Grid(torch.linspace(0.4, 9.0, 60, dtype=torch.float64))
    theta = chosen.vector() * torch.tensor([[0.9], [1.0], [1.05]], dtype=torch.float64)
    together = model.flux_and_derivatives(grid, chosen.expand(theta), list(chosen.free))
    for row in range(3):
        alone = model.flux_and_derivatives(grid, chosen.expand(theta[row : row + 1]), list(chosen.free))
        torch.testing.assert_close(together[0][row], alone[0][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(together[1][row], alone[1][0], rtol=1e-10, atol=1e-12 * float(alone[0].max()))


def test_terms_add_up_to_the_whole():
    model, chosen = setup("constant*(tbabs*powerlaw+phabs*(bbody+gaussian))")
    grid = Grid(torch.linspace(0.4, 9.0, 60, dtype=torch.float64))
    values = chosen.expand(chosen.vector())
    assert [name for name, _ in model.terms] == ["powerlaw", "bbody", "gaussian"]
    torch.testing.assert_close(sum(term.flux(grid, values) for _, term in model.terms), model.flux(grid, values))


def test_norm_scales_and_absorption_multiplies():
    grid = Grid(torch.linspace(0.4, 9.0, 60, dtype=torch.float64))
    alone, _ = setup("powerlaw")
    both, chosen = setup("tbabs*powerlaw")
    values = chosen.expand(chosen.vector())
    factor = both.leaves[0].evaluate(grid, values)
    torch.testing.assert_close(both.flux(grid, values), factor * alone.flux(grid, values))
    doubled = chosen.set("norm", 2.0)
    torch.testing.assert_close(both.flux(grid, doubled.expand(doubled.vector())), 2.0 * both.flux(grid, values))


def test_redshifted_expression_is_the_redshifted_component():
    grid = Grid(torch.linspace(0.4, 9.0, 60, dtype=torch.float64))
    shifted, chosen = setup("zashift*powerlaw")
    direct, other = setup("zpowerlw")
    torch.testing.assert_close(
        shifted.flux(grid, chosen.expand(chosen.vector())),
        direct.flux(grid, other.expand(other.vector())),
        rtol=1e-10,
        atol=0,
    )


@pytest.mark.parametrize(
    ("text", "dark"),
    [(text, dark) for text in EXPRESSIONS for dark in (False, True) if not (dark and "cflux" in text)],
)
def test_pullback_is_the_weighted_sum_of_the_derivatives(text, dark):
    model, chosen = setup(text)
    grid = Grid(torch.linspace(0.4, 9.0, 60, dtype=torch.float64))
    theta = chosen.vector() * torch.tensor([[0.9], [1.0]], dtype=torch.float64)
    values, names = chosen.expand(theta), list(chosen.free)
    for norm in model.norms if dark else ():
        values[norm] = values[norm] * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    flux, slopes = model.flux_and_derivatives(grid, values, names)
    again, pull = model.pullback(grid, values, names)
    weights = torch.rand(2, 59, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = pull(weights)
    torch.testing.assert_close(again, flux)
    for i, name in enumerate(names):
        torch.testing.assert_close(
            found[name], (weights * slopes[:, i]).sum(-1), rtol=1e-10, atol=1e-12 * float(flux.max())
        )


def test_products_in_the_exponent_equal_products_of_values():
    """Fine bins take the short cut, bins too wide for its series do not; both are the product of the parts."""
    model, chosen = setup("constant*tbabs*phabs*powerlaw")
    for edges in (torch.linspace(0.4, 9.0, 60), torch.tensor([0.1, 5.0, 100.0])):
        grid = Grid(edges)
        for index in (-2.0, 1.0, 2.3, 9.0):
            values = chosen.set("PhoIndex", index).expand(chosen.set("PhoIndex", index).vector())
            expected = 1.0
            for leaf in model.leaves:
                expected = expected * leaf.evaluate(grid, values)
            torch.testing.assert_close(model.flux(grid, values), expected, rtol=1e-12, atol=0)
    assert model.tree.chain
    assert not setup("tbabs*(powerlaw+bbody)")[0].tree.chain
