"""Fit statistics: value, derivatives and curvature per bin, and the choice that suits the data.

A new statistic is one class (see ``base.Statistic``) and one line in `STATISTICS`.
"""

from __future__ import annotations

from deepspec.registry import Registry
from deepspec.statistics.base import FLOOR, Statistic
from deepspec.statistics.choose import choose_statistic
from deepspec.statistics.counting import CStat, PGStat, WStat
from deepspec.statistics.gaussian import (
    Chi2,
    Chi2Churazov,
    Chi2ConstVar,
    Chi2DataVar,
    Chi2Gehrels,
    Chi2ModVar,
)

__all__ = [
    "FLOOR",
    "STATISTICS",
    "CStat",
    "Chi2",
    "Chi2Churazov",
    "Chi2ConstVar",
    "Chi2DataVar",
    "Chi2Gehrels",
    "Chi2ModVar",
    "PGStat",
    "Statistic",
    "WStat",
    "choose_statistic",
]

STATISTICS = Registry(
    "statistic",
    {
        "cstat": "deepspec.statistics:CStat",
        "wstat": "deepspec.statistics:WStat",
        "pgstat": "deepspec.statistics:PGStat",
        "chi2": "deepspec.statistics:Chi2",
        "chi2datavar": "deepspec.statistics:Chi2DataVar",
        "chi2gehrels": "deepspec.statistics:Chi2Gehrels",
        "chi2churazov": "deepspec.statistics:Chi2Churazov",
        "chi2modvar": "deepspec.statistics:Chi2ModVar",
        "chi2constvar": "deepspec.statistics:Chi2ConstVar",
    },
    aliases={"chi": "chi2", "chi2xspecvar": "chi2", "chi2standard": "chi2", "chi2model": "chi2modvar"},
)
"""Every statistic by the name that ``--stat`` takes; the aliases are other programs' spellings."""
