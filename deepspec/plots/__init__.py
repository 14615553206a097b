"""Figures of a fitted problem: spectrum with residuals, unfolded spectrum, steppar. No global matplotlib state is touched."""

from deepspec.plots.spectrum import plot_spectrum
from deepspec.plots.steppar import plot_steppar
from deepspec.plots.unfolded import plot_unfolded

__all__ = ["plot_spectrum", "plot_steppar", "plot_unfolded"]
