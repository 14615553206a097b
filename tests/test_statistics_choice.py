"""The chi2 family's variances, the choice of a statistic by the data, and messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.statistics import STATISTICS, CStat, WStat, choose_statistic
from statistic_cases import EVERY, binned

# chi2 ---------------------------------------------------------------------------------------------------------------


def test_chi2_takes_the_errors_of_the_files():
    data = binned(
        [10.5, -3.0],
        [4.5, 8.0],
        0.5,
        poisson=False,
        error=np.array([2.0, 3.0]),
        background_poisson=False,
        background_error=np.array([1.0, 4.0]),
    )
    value = STATISTICS["chi2"](data).per_bin(torch.tensor([7.0, 1.0]).double())
    expected = [(10.5 - 2.25 - 7.0) ** 2 / (4 + 0.25), (-3.0 - 4.0 - 1.0) ** 2 / (9 + 0.25 * 16)]
    np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_chi2modvar_of_subtracted_data():
    statistic = STATISTICS["chi2modvar"](binned([20.0], [10.0], 0.5))
    value = float(statistic.value(torch.tensor([12.0]).double()))
    assert value == pytest.approx((20 - 5 - 12) ** 2 / (12 + 5 + 2.5))


def test_churazov_averages_over_the_nearest_bins_with_ten_counts():
    counts = [0.0, 2.0, 3.0, 1.0, 40.0, 0.0, 0.0]
    variance = STATISTICS["chi2churazov"](binned(counts)).variance
    # The windows reach bin 4 at half-width 4, 3, 2, 1, 0, 1, 2; at the ends they are cut.
    by_hand = [46 / 5, 46 / 5, 46 / 5, 44 / 3, 40.0, 40 / 3, 40 / 3]
    np.testing.assert_allclose(variance, by_hand)


# choice and messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (binned([3.0, 4.0]), "cstat", "no background"),
        (binned([3.0, 4.0], [1.0, 2.0], 0.5), "wstat", "both Poisson"),
        (
            binned([3.0, 4.0], [1.5, 2.0], 0.5, background_poisson=False, background_error=np.ones(2)),
            "pgstat",
            "Gaussian errors",
        ),
        (binned([3.5, 4.0], poisson=False, error=np.ones(2)), "chi2", "not Poisson"),
    ],
)
def test_the_data_choose_the_statistic(data, name, reason):
    chosen, why = choose_statistic(data)
    assert chosen == name
    assert why.startswith(f"{name}, because")
    assert reason in why
    assert STATISTICS[chosen](data).name == name


def test_the_choice_warns_of_empty_background_bins():
    few_empty = binned(np.full(20, 3.0), np.r_[0.0, np.full(19, 2.0)], 0.5)
    many_empty = binned(np.full(20, 3.0), np.r_[np.zeros(13), np.full(7, 2.0)], 0.5)
    assert "minbkg" not in choose_statistic(few_empty)[1]
    assert "65% of the bins" in choose_statistic(many_empty)[1]
    assert "--group minbkg:" in choose_statistic(many_empty)[1]
    assert "--group minbkg:" in WStat(many_empty).notes[0]


def test_cstat_says_that_it_ignores_a_background():
    assert CStat(binned([3.0])).notes == ()
    assert "wstat" in CStat(binned([3.0], [1.0], 0.5)).notes[0]


GAUSSIAN = binned([3.5, -4.0], poisson=False, error=np.ones(2))
BARE = binned([3.5, -4.0], poisson=False)
PLAIN = binned([3.0, 0.0])
RATES = binned([3.0, 4.0], [1.5, 2.0], 0.5, background_poisson=False)
COUNTED = binned([3.0, 4.0], [1.0, 2.0], 0.5)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        *((name, GAUSSIAN, ["Poisson counts", "--stat"]) for name in EVERY if name not in ("chi2", "chi2datavar")),
        ("wstat", PLAIN, ["needs a background", "--bkg"]),
        ("pgstat", PLAIN, ["needs a background", "--bkg"]),
        ("wstat", RATES, ["Poisson counts in the background", "pgstat"]),
        ("pgstat", COUNTED, ["errors of the background", "wstat"]),
        ("chi2", BARE, ["errors", "STAT_ERR"]),
        ("chi2", RATES, ["errors of the background", "STAT_ERR"]),
        ("chi2gehrels", RATES, ["background is not Poisson"]),
        ("chi2datavar", PLAIN, ["1 of 2 bins", "zero variance", "--group"]),
        ("chi2", binned([3.5, 1.0], poisson=False, error=np.array([1.0, 0.0])), ["1 of 2 bins", "zero variance"]),
        ("wstat", binned([3.0, 1.0], [1.0, 1.0], [0.5, 0.0]), ["BACKSCAL", "1 of 2 bins"]),
        ("chi2", binned([3.0, 1.0], [1.0, 1.0], [0.5, np.nan]), ["BACKSCAL", "1 of 2 bins"]),
        (
            "pgstat",
            binned([3.0], [-1.5], 0.5, background_poisson=False, background_error=np.zeros(1)),
            ["background errors", "1 of 1 bins"],
        ),
    ],
)
def test_unsuitable_data_are_refused_in_a_sentence(name, data, words):
    with pytest.raises(UserError) as caught:
        STATISTICS[name](data)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "data", [BARE, binned([3.0], [1.5], 0.5, background_poisson=False)], ids=["source", "background"]
)
def test_no_statistic_suits_numbers_without_errors(data):
    with pytest.raises(UserError, match="no statistic suits"):
        choose_statistic(data)


@pytest.mark.parametrize(("other", "ours"), [("chi2xspecvar", "chi2"), ("chi", "chi2"), ("CSTAT", "cstat")])
def test_other_programs_spellings(other, ours):
    assert STATISTICS[other] is STATISTICS[ours]


def test_every_statistic_shows_its_formula():
    for name, cls in STATISTICS.items():
        assert cls.name == name
        assert "Σ" in cls.formula
        assert "\n" not in cls.formula
