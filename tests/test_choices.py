"""What a user chooses: texts read, wrong ones refused with a remedy, later ones on top of earlier ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.choices import (
    Choices,
    apply_actions,
    band,
    energy_range,
    for_file,
    make_choices,
    paired,
)
from deepspec.errors import UserError
from deepspec.models.model import Model
from deepspec.parameters import ParameterSet


def parameters(text="tbabs*powerlaw"):
    return ParameterSet(Model(text).parameters)


def applied(text="tbabs*powerlaw", **actions):
    return apply_actions(parameters(text), make_choices(**actions).actions)


@given(st.floats(0.01, 50), st.floats(0.01, 50))
def test_a_range_given_as_numbers_comes_back_exactly(low, high):
    text = make_choices(notice=(low, high)).notice[0]
    if low < high:
        assert energy_range(text, "--notice") == (low, high)
    else:
        with pytest.raises(UserError, match="empty or reversed"):
            energy_range(text, "--notice")


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("0.4:9", ("0.4:9",)),
        ((0.4, 9), ("0.4:9.0",)),
        ((None, 9), (":9.0",)),
        ([(0.4, 2), (3, 9)], ("0.4:2.0", "3.0:9.0")),
        (["0.4:2", "2=3:9"], ("0.4:2", "2=3:9")),
    ],
)
def test_ranges_in_all_spellings(given, texts):
    assert make_choices(notice=given).notice == texts


@pytest.mark.parametrize("text", ["5", ":", "a:b", "9:0.4", ""])
def test_no_range(text):
    with pytest.raises(UserError, match=r"--notice: .*"):
        energy_range(text, "--notice")


@pytest.mark.parametrize("text", ["0:2", ":2", "2:", "2:inf"])
def test_a_flux_band_has_two_positive_ends(text):
    with pytest.raises(UserError, match="not a band"):
        band(text)


def test_a_number_in_front_concerns_one_file():
    texts = ["0.4:9", "2=1:5", "2=6:7"]
    assert [for_file(texts, i, 3, "--notice") for i in (1, 2, 3)] == [["0.4:9"], ["1:5", "6:7"], ["0.4:9"]]
    with pytest.raises(UserError, match="there is no file 4"):
        for_file(["4=1:2"], 1, 3, "--notice")


def test_companions_are_paired_in_order():
    assert paired(["a", "b"], 2, 2, "--arf") == ["b"]
    assert paired(["2=b"], 1, 2, "--arf") == []
    assert paired(["a", "b"], 1, 1, "--bkg", many=True) == ["a", "b"]
    with pytest.raises(UserError, match="2 files for one spectrum"):
        paired(["a", "b"], 1, 1, "--arf")
    with pytest.raises(UserError, match="1 given for 2 spectra"):
        paired(["a"], 1, 2, "--arf")


def test_actions_are_done():
    made, priors = applied(
        set={"PhoIndex": 1.5}, fix=["nH=0.02"], limits={"PhoIndex": (1, 3)}, prior={"PhoIndex": "normal(1.8,0.1)"}
    )
    assert made["PhoIndex"].value == 1.5
    assert made["nH"].frozen
    assert made["nH"].value == 0.02
    assert (made["PhoIndex"].low, made["PhoIndex"].high) == (1.0, 3.0)
    assert list(priors) == ["powerlaw.PhoIndex"]


def test_a_linked_value_follows_from_the_start():
    made, _ = applied(
        "powerlaw+powerlaw", set={"powerlaw.PhoIndex": 1.5}, link="powerlaw_2.PhoIndex=powerlaw.PhoIndex+1"
    )
    assert made["powerlaw_2.PhoIndex"].value == 2.5
    assert "powerlaw_2.PhoIndex" not in made.free


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        ({"set": "PhoIndx=2"}, r"--set PhoIndx=2: unknown parameter 'PhoIndx'; did you mean powerlaw.PhoIndex"),
        ({"fix": "foo"}, "--fix foo: unknown parameter 'foo'"),
        ({"thaw": "foo"}, "--thaw foo: unknown parameter"),
        ({"link": "nH=foo"}, "--link nH=foo: unknown parameter 'foo'"),
        ({"link": "nH=import os"}, "not an expression"),
        ({"link": "nH=__import__('os')"}, "cannot be used in a link"),
        ({"link": ["nH=PhoIndex", "PhoIndex=nH"]}, "run in a circle: tbabs.nH -> powerlaw.PhoIndex -> tbabs.nH"),
        ({"link": "nH=norm-5"}, "puts tbabs.nH at -4, outside its limits"),
        ({"set": "PhoIndex=100"}, r"--set PhoIndex=100: the value 100 .* outside its limits; stay within -3 and 10"),
        ({"set": "PhoIndex=nan"}, "not a finite number"),
        ({"set": "PhoIndex=abc"}, "'abc' is not a number"),
        ({"set": "PhoIndex"}, "has no ="),
        ({"set": "PhoIndex="}, "not understood"),
        ({"thaw": "nH=3"}, "sets a value"),
        ({"limits": "nH=3:1"}, "empty or reversed"),
        ({"limits": "nH=3:"}, "leaves a limit out"),
        ({"limits": "nH=0:1", "set": "nH=2"}, "outside the limits 0 to 1 given with --limits"),
        ({"limits": "nH=-5:1"}, "beyond what the component allows"),
        ({"prior": "nH=cauchy(1,2)"}, "unknown prior 'cauchy'"),
    ],
)
def test_impossible_actions_name_the_option(actions, sentence):
    with pytest.raises(UserError, match=sentence):
        applied(**actions)


@pytest.mark.parametrize(
    ("field", "value"),
    [("starts", 0), ("goodness", -1), ("seed", -1), ("errors", "both"), ("delta", 0.0), ("redshift", -1.0)],
)
def test_impossible_numbers_name_the_option(field, value):
    with pytest.raises(UserError, match=f"^--{field}: "):
        Choices(**{field: value})


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="unknown keyword notise; did you mean notice"):
        make_choices(notise=(1, 2))


def test_later_choices_come_on_top():
    first = make_choices(files=["a.pha"], model="powerlaw", notice=(1, 2), fix={"PhoIndex": 1.5}, starts=4)
    second = make_choices(first, notice=(1, 3), thaw="PhoIndex")
    assert second.files == ("a.pha",)
    assert second.notice == ("1.0:3.0",)
    assert second.starts == 4
    assert [verb for verb, *_ in second.actions] == ["fix", "thaw"]
    made, _ = apply_actions(parameters("powerlaw"), second.actions)
    assert made["PhoIndex"].value == 1.5
    assert not made["PhoIndex"].frozen


def test_files_are_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.pha").write_text("")
    monkeypatch.chdir(tmp_path / "a")
    chosen = make_choices(files=["x.pha"])
    assert chosen.path("x.pha") == "x.pha"
    monkeypatch.chdir(tmp_path)
    assert chosen.path("x.pha{2}") == str(tmp_path / "a/x.pha{2}")
    assert chosen.path("other.arf") == "other.arf"
