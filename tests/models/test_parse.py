"""The model language: XSPEC's spelling, labels, and the sentences for what cannot be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.models.base import Kind
from deepspec.models.model import Model
from deepspec.models.parse import ABBREVIATIONS, parse_expression


def labels(text):
    return [leaf.label for leaf in parse_expression(text).leaves()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("powerlaw", ["powerlaw"]),
        ("tbabs*powerlaw", ["tbabs", "powerlaw"]),
        ("tbabs(po+bb)", ["tbabs", "powerlaw", "bbody"]),
        (" TBabs * ( PowerLaw + po ) ", ["tbabs", "powerlaw", "powerlaw_2"]),
        ("tb(po+tb(po+bb))", ["tbabs", "powerlaw", "tbabs_2", "powerlaw_2", "bbody"]),
        ("zashift*tbabs*po", ["zashift", "tbabs", "powerlaw"]),
        ("(tbabs)(po)", None),
        ("po*tbabs", ["powerlaw", "tbabs"]),
        ("constant*tbabs(zashift(gauss)+po)", ["constant", "tbabs", "zashift", "gaussian", "powerlaw"]),
    ],
)
def test_labels(text, expected):
    if expected is None:
        with pytest.raises(UserError):
            labels(text)
    else:
        assert labels(text) == expected


@pytest.mark.parametrize("short", sorted(ABBREVIATIONS))
def test_every_abbreviation_names_a_native_component(short):
    from deepspec.models import COMPONENTS

    assert ABBREVIATIONS[short] in COMPONENTS


def test_parameters_in_xspec_order():
    assert list(Model("tbabs*(powerlaw+powerlaw)").parameters) == [
        "tbabs.nH",
        "powerlaw.PhoIndex",
        "powerlaw.norm",
        "powerlaw_2.PhoIndex",
        "powerlaw_2.norm",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("tbabs*(powerlaw", "never closed"),
        ("tbabs*powerlaw)", "no opening one"),
        ("powerlaw*bbody", "cannot be multiplied"),
        ("tbabs+powerlaw", "only additive"),
        ("powerlow", "powerlaw"),
        ("tbabs*", "ends too early"),
        ("tbabs**powerlaw", "missing before '*'"),
        ("tbabs*powerlaw-bbody", "not an operation"),
        ("tbabs*powerlaw?", "character 15"),
        ("zashift", "nothing to act on"),
        ("zashift+powerlaw", "nothing to act on"),
        ("zashift*tbabs", "needs a source of photons"),
        ("powerlaw{file.fits}", "takes no file"),
        ("atable", "needs a file"),
        ("powerlaw powerlaw", "not expected"),
        ("__import__('os')", "has no meaning here"),
        ("__import__(os)", "unknown component"),
    ],
)
def test_refusals_name_the_model_and_the_fault(text, says):
    with pytest.raises(UserError) as caught:
        parse_expression(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="tbabspowerl()*+ {}._12zashiftmekal", max_size=25))
def test_any_text_is_read_or_refused(text):
    try:
        node = parse_expression(text)
    except UserError:
        return
    assert node.kind in Kind


def test_model_without_photons_is_multiplicative():
    assert Model("tbabs*constant").kind is Kind.MULTIPLICATIVE


def test_unabsorbed_leaves_out_absorption_only():
    model = Model("constant*tbabs*(powerlaw+phabs*bbody)")
    assert list(model.unabsorbed.components) == ["constant", "powerlaw", "bbody"]
    assert Model("tbabs").unabsorbed is None
