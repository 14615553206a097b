"""Which statistic suits the data, and why, in one sentence."""

from __future__ import annotations

from deepspec.binned import BinnedData
from deepspec.errors import UserError
from deepspec.statistics.counting import background_notes


def choose_statistic(binned: BinnedData) -> tuple[str, str]:
    """The name in ``STATISTICS`` that ``--stat auto`` stands for, and the reason.

    Parameters
    ----------
    binned : BinnedData

    Returns
    -------
    name : str
    why : str
        One sentence for the user; a second one where wstat is biased by empty background bins.

    Raises
    ------
    UserError
        If the counts are not Poisson counts and the file gives no errors either.
    """
    if not binned.poisson:
        if binned.error is None:
            raise UserError(
                "the counts are not Poisson counts (negative, fractional or rates) and the file gives no errors, "
                "so no statistic suits them",
                source="--stat",
                remedy="add a STAT_ERR column to the spectrum, or use the counts before any subtraction",
            )
        return "chi2", "chi2, because the counts are not Poisson counts and the file gives their errors."
    if binned.background is None:
        return "cstat", "cstat, because the counts are Poisson counts and there is no background spectrum."
    if binned.background_poisson:
        why = "wstat, because source and background are both Poisson counts."
        return "wstat", " ".join([why, *(f"{note[0].upper()}{note[1:]}." for note in background_notes(binned))])
    if binned.background_error is not None:
        return "pgstat", "pgstat, because the counts are Poisson counts and the background comes with Gaussian errors."
    raise UserError(
        "the background is not Poisson counts and its file gives no errors, so no statistic suits it",
        source="--stat",
        remedy="add a STAT_ERR column to the background, or fit without it and --stat cstat",
    )
