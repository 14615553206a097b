"""Poisson likelihoods for training in float32, written relative to a reference so that the numbers stay small.

Everything here is in nats (half of Cash's C or of W) and takes leading batch axes ``(..., n)``. The statistics of fits, in
float64, live in `deepspec.statistics`; the tests hold both against each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12
"""Expected counts are never taken below this [count]: logarithms stay finite, nothing else changes."""
THRESHOLD = 300.0
"""Misfits above this continue logarithmically [nat]: the brightest sources do not own the first minutes of a training."""
SMALL = 0.03
"""Below this |d| a series replaces d - ln(1+d): in float32 the difference keeps no digits there."""


def cash(counts: Tensor, expected: Tensor, reference: Tensor) -> Tensor:
    """Poisson log likelihood of `reference` minus that of `expected`, per bin [nat].

    With m expected, r reference and d = (m-r)/r it is (m - r) - n ln(m/r) = r (d - ln(1+d)) + (r-n) ln(1+d), in which
    no two large numbers are subtracted. With the true expected counts as reference the sum over bins is small for
    every good model; with the counts themselves it is C/2 of Cash (1979) with the saturated term.

    Parameters
    ----------
    counts : Tensor, shape (..., n) [count]
    expected : Tensor, shape (..., n) [count]
        Source and background.
    reference : Tensor, shape (..., n) [count]
        Zero is allowed where `counts` is zero: the bin then contributes `expected`.

    Returns
    -------
    Tensor, shape (..., n); negative where `expected` fits better than `reference`.
    """
    return _terms(counts, expected, reference)


def wstat(counts: Tensor, background: Tensor, ratio: Tensor, source: Tensor) -> Tensor:
    """W/2 per bin, relative to the saturated model: background of each bin profiled out [nat].

    The profiled background is a minimum of the statistic, so that the derivative by `source` needs none of its own
    (envelope theorem): it is found without gradients, and its rounding error enters only to second order.

    Parameters
    ----------
    counts, background : Tensor, shape (..., n) [count]
        In the source and in the background region.
    ratio : Tensor, shape (..., 1) or (..., n)
        Source-region background per background-region count, positive.
    source : Tensor, shape (..., n) [count]
        Expected source counts.
    """
    source = source.clamp(min=FLOOR)
    with torch.no_grad():
        region = profiled_background(counts, background, ratio, source)
    return _terms(counts, source + ratio * region, counts) + _terms(background, region, background)


def profiled_background(counts: Tensor, background: Tensor, ratio: Tensor, source: Tensor) -> Tensor:
    """Expected background-region counts β that maximise the likelihood, shape (..., n) [count].

    The root of α(1+α)β² - qβ - bS = 0, q = α(n+b) - (1+α)S, in the form without cancellation for either sign of q;
    source: XSPEC manual, appendix B.
    """
    q = ratio * (counts + background) - (1 + ratio) * source
    scale = 2 * ratio * (1 + ratio)
    root = torch.sqrt(q * q + 2 * scale * background * source)
    return torch.where(q < 0, 2 * background * source / (root - q).clamp(min=FLOOR), (q + root) / scale)


def robust(misfit: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """`misfit` up to the threshold T, T (1 + ln(misfit/T)) above it: continuous with its derivative [nat].

    Parameters
    ----------
    misfit : Tensor, any shape [nat]
        Summed over bins; negative values pass unchanged.
    threshold : float
    """
    return torch.where(misfit > threshold, threshold * (1 + torch.log(misfit.clamp(min=threshold) / threshold)), misfit)


def _terms(counts: Tensor, expected: Tensor, reference: Tensor) -> Tensor:
    """r (d - ln(1+d)) + (r-n) ln(1+d) per bin; what `cash` documents."""
    expected, floored = expected.clamp(min=FLOOR), reference.clamp(min=FLOOR)
    difference = (expected - floored) / floored
    near = difference.abs() < SMALL
    # Both branches of a `where` are differentiated: each gets arguments at which it is finite.
    small = torch.where(near, difference, torch.zeros_like(difference))
    logarithm = torch.where(near, torch.log1p(small), torch.log(expected / floored))
    series = small * small * (0.5 - small * (1 / 3 - small * (0.25 - small * (0.2 - small / 6))))
    excess = torch.where(near, series, difference - logarithm)
    return floored * excess + torch.where(reference == counts, 0.0, floored - counts) * logarithm
