"""Values, limits, links: immutable sets, exact chain rule, refusals in a sentence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.models.base import Parameter
from deepspec.models.model import Model
from deepspec.parameters import LinkExpression, ParameterSet


@pytest.fixture
def two():
    return ParameterSet(Model("tbabs*(powerlaw+powerlaw)").parameters)


def test_changes_leave_the_old_set_alone(two):
    changed = two.set("powerlaw.PhoIndex", 2.5).freeze("nH")
    assert two["powerlaw.PhoIndex"].value == 1.0
    assert changed["powerlaw.PhoIndex"].value == 2.5
    assert "tbabs.nH" in two.free
    assert "tbabs.nH" not in changed.free


def test_short_names_where_only_one_fits(two):
    assert two.key("nh") == "tbabs.nH"
    with pytest.raises(UserError, match=r"powerlaw\.PhoIndex or powerlaw_2\.PhoIndex"):
        two.key("PhoIndex")
    with pytest.raises(UserError, match="did you mean"):
        two.key("powerlaw.PhoIndx")


def test_linked_value_and_chain(two):
    linked = two.link("powerlaw_2.PhoIndex", "powerlaw.PhoIndex + 2*tbabs.nH**2").link(
        "powerlaw_2.norm", "powerlaw_2.PhoIndex*powerlaw.norm"
    )
    assert linked.free == ("tbabs.nH", "powerlaw.PhoIndex", "powerlaw.norm")
    theta = torch.tensor([[0.5, 1.5, 3.0], [1.0, 2.0, 1.0]], dtype=torch.float64)
    values = linked.expand(theta)
    torch.testing.assert_close(values["powerlaw_2.PhoIndex"][:, 0], torch.tensor([2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(values["powerlaw_2.norm"][:, 0], torch.tensor([6.0, 4.0], dtype=torch.float64))
    chain = linked.chain(theta)
    assert linked.varying()[3:] == ("powerlaw_2.PhoIndex", "powerlaw_2.norm")
    torch.testing.assert_close(chain[0, 3], torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(chain[0, 4], torch.tensor([6.0, 3.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "expression", "says"),
    [
        ("powerlaw.norm", "powerlaw.norm", "circle"),
        ("powerlaw.norm", "nope.norm*2", "unknown parameter"),
        ("powerlaw.norm", "__import__('os').system('x')", "cannot be used in a link"),
        ("powerlaw.norm", "tbabs.nH if 1 else 2", "cannot be used"),
        ("powerlaw.norm", "2*", "not an expression"),
        ("powerlaw.norm", "'a'", "cannot be used"),
        ("powerlaw.norm", "open(tbabs.nH)", "cannot be used"),
    ],
)
def test_bad_links(two, name, expression, says):
    with pytest.raises(UserError, match=says):
        two.link(name, expression)


def test_circular_links_are_named(two):
    with pytest.raises(UserError, match=r"circle: .* -> "):
        two.link("powerlaw_2.norm", "2*powerlaw.norm").link("powerlaw.norm", "powerlaw_2.norm/2")


def test_limits(two):
    with pytest.raises(UserError, match="outside its limits"):
        two.set("nH", -1.0)
    with pytest.raises(UserError, match="not a finite number"):
        two.set("nH", float("nan"))
    with pytest.raises(UserError, match="not an interval"):
        two.limit("nH", 2.0, 1.0)
    with pytest.raises(UserError, match="beyond what the component allows"):
        two.limit("nH", -5.0, 1.0)
    narrowed = two.limit("nH", 2.0, 3.0)
    assert narrowed["nH"].value == 2.0
    # beyond the soft limit, within the hard one: allowed, and the fit limit follows
    index = two["powerlaw.PhoIndex"].parameter
    value = 0.5 * (index.soft_max + index.hard_max)
    assert two.set("powerlaw.PhoIndex", value)["powerlaw.PhoIndex"].high == value


def test_switches_are_never_free():
    chosen = ParameterSet({"m.switch": Parameter("switch", 1.0, switch=True)})
    assert chosen.free == ()
    with pytest.raises(UserError, match="switch"):
        chosen.thaw("m.switch")
    with pytest.raises(UserError, match="whole numbers"):
        chosen.set("m.switch", 0.5)


@given(st.floats(-3, 3), st.floats(0.1, 3))
def test_link_arithmetic_is_pythons(a, b):
    text = "2*a.x - b.y**2/(1 + 0.5*b.y) + sqrt(b.y) - -a.x + log10(b.y)"
    link = LinkExpression(text, lambda name: name)
    found = link({"a.x": torch.tensor([a], dtype=torch.float64), "b.y": torch.tensor([b], dtype=torch.float64)})
    import math

    assert float(found) == pytest.approx(2 * a - b**2 / (1 + 0.5 * b) + math.sqrt(b) + a + math.log10(b), abs=1e-9)


def test_with_vector_moves_linked_values(two):
    linked = two.link("powerlaw_2.norm", "3*powerlaw.norm")
    moved = linked.with_vector([0.2, 1.8, 2.0, 2.2])
    assert moved["powerlaw_2.norm"].value == 6.0


def test_links_beyond_hard_limits_are_seen(two):
    linked = two.link("powerlaw_2.PhoIndex", "20*powerlaw.PhoIndex")
    theta = torch.tensor([[0.1, 0.1, 1.0, 1.0], [0.1, 2.0, 1.0, 1.0]], dtype=torch.float64)
    assert linked.check_links(theta).tolist() == [True, False]
