"""From choices to a problem: abundances reach every absorber, choices of observations give them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepspec.assembly import choices_of, make_model, observe
from deepspec.choices import Choices
from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.models.xspec import available
from deepspec.provenance import provenance, version_of

DATA = Path(__file__).resolve().parents[1] / "data"


def test_abundances_reach_every_absorber():
    model = make_model("tbabs*ztbabs*pcfabs*zpcfabs*powerlaw", "angr")
    assert {chosen["abundances"] for chosen in model.settings.values()} == {"angr"}
    assert len(model.settings) == 4
    with pytest.raises(UserError, match="--abund solar: unknown abundance table"):
        make_model("tbabs*powerlaw", "solar")


@pytest.mark.skipif(not available()[0], reason="no XSPEC library is installed")
def test_abundances_reach_the_models_of_xspec():
    assert make_model("xs_phabs*powerlaw", "angr").settings["phabs"]["abundances"] == "angr"


def test_ranges_apply_to_their_file():
    files = (str(DATA / "binary_a.pha"), str(DATA / "binary_b.pha"))
    one, two = observe(Choices(files=files, notice=("1:5", "2=2:6"), ignore=("2=3:4",), group=("min:10", "2=none")))
    assert one.spectrum.range_used == pytest.approx((0.99, 5.01))
    assert two.spectrum.range_used == pytest.approx((2.0, 6.0))
    low, high = two.binned.energy_low, two.binned.energy_high
    assert not ((high > 3.0) & (low < 4.0)).any()
    assert (one.binned.counts >= 10).all()
    assert str(two.spectrum.grouping) == "none"


def test_choices_of_observations_give_them_again():
    first = read_observation(DATA / "binary_a.pha").notice(0.5, 2, rule="inside").ignore(1, 1.2).group("min", 7)
    second = read_observation(DATA / "faint_a.pha", background="none", arf="none").notice(None, 5).group("width:0.3")
    again = observe(Choices(**choices_of([first, second])))
    for before, after in zip((first, second), again, strict=True):
        assert after.describe() == before.describe()
        assert (after.binned.counts == before.binned.counts).all()
        assert (after.folded.matrix == before.folded.matrix).all()
        assert (after.binned.background is None) == (before.binned.background is None)


def test_provenance_names_versions_command_and_seed():
    found = provenance(seed=7, seconds=1.23456, command="deepspec fit x.pha")
    assert found["command"] == "deepspec fit x.pha"
    assert (found["seed"], found["seconds"]) == (7, 1.235)
    assert found["numpy"] == version_of("numpy")
    assert found["time"].endswith("+00:00")
    assert version_of("no-such-package") is None
    assert provenance(0, 0.0)["command"]
