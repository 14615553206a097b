"""What a user of Sherpa runs: load, notice, fit, covar, one plot. Measured as a whole process by `processes.py`."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from absorber import Absorber  # noqa: E402
from matplotlib import pyplot  # noqa: E402
from sherpa.astro import ui  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("low", type=float)
    parser.add_argument("high", type=float)
    parser.add_argument("plot", type=Path)
    given = parser.parse_args()
    ui.load_pha(given.file)
    ui.ignore_bad()
    ui.ignore()
    ui.notice(given.low, given.high)
    ui.add_model(Absorber)
    ui.set_source("absorber.gal * powlaw1d.p1")
    ui.get_model_component("gal").nH = 0.1
    ui.get_model_component("p1").gamma = 1.7
    ui.get_model_component("p1").ampl = 1e-4
    ui.set_stat("wstat")
    ui.set_method("levmar")
    ui.fit()
    ui.covar()
    ui.plot_fit_ratio(xlog=True)
    pyplot.savefig(given.plot, dpi=150)


if __name__ == "__main__":
    main()
