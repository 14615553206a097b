"""The numbers behind the cameras of `deepspec.training.cameras`."""

from __future__ import annotations

from dataclasses import dataclass

FANO = 0.115
"""Fano factor of silicon."""
PAIR_ENERGY = 3.65e-3
"""Energy to make an electron-hole pair in silicon [keV]."""

KNOTS = (0.2, 0.3, 0.45, 0.7, 1.0, 1.5, 2.5, 4.0, 5.5, 7.0, 8.5, 10.0, 11.5, 14.0)
"""Energies at which `CameraParameters.smooth_area` is given [keV]."""


@dataclass(frozen=True)
class Edge:
    """Area times exp(-depth (E/energy)^-power) above `energy` [keV]."""

    energy: float
    depth: float
    power: float = 3.0


@dataclass(frozen=True)
class CameraParameters:
    """What makes a camera.

    Attributes
    ----------
    smooth_area : effective area at `KNOTS` without the edges [cm2].
    edges : absorption edges.
    band : energies that observers fit [keV].
    noise : readout noise, FWHM [keV].
    transfer : width from charge transfer, FWHM per energy [keV/keV].
    tail, tail_length : share of a 1 keV photon's events in the tail below the peak (goes with E^-2), and its
        mean length as a share of the energy.
    shelf, escape : share in the shelf, and in the escape peak just above the silicon edge.
    sky_share : share of the background that came through the mirrors.
    sky_soft : strength of the soft sky relative to the power law.
    particle_soft : rise of the particle continuum at low energy.
    lines : fluorescent lines, (energy [keV], counts relative to the particle continuum in .3-10 keV).
    contamination : range of the optical depth at 0.7 keV that a relative has more than this one.
    """

    smooth_area: tuple[float, ...]
    edges: tuple[Edge, ...]
    band: tuple[float, float]
    noise: float
    transfer: float
    tail: float
    tail_length: float
    shelf: float
    escape: float
    sky_share: float
    sky_soft: float
    particle_soft: float
    lines: tuple[tuple[float, float], ...]
    contamination: tuple[float, float] = (0.0, 0.0)


# The smooth areas and edge depths were adjusted until the product resembles public on-axis areas: EPIC with the medium
# filter, ACIS with the contamination of about 2005 (S3) and the mean of 2000-2010 (I), XRT in photon counting mode,
# eROSITA's survey average. Edges: C, N, O, Al, Si K; Au M5, M4 or Ir M5, M4, behind which reflectivity returns slowly.
# Widths follow the observatories' handbooks; lines those seen with closed filters.
CAMERA_PARAMETERS: dict[str, CameraParameters] = {
    "pn": CameraParameters(
        smooth_area=(192, 563, 884, 1080, 1150, 1210, 1090, 966, 892, 681, 415, 238, 87.8, 6.7),
        edges=(
            Edge(0.284, 0.99),
            Edge(0.409, 0.08),
            Edge(0.537, 0.20),
            Edge(1.560, 0.07),
            Edge(1.839, -0.03),
            Edge(2.206, 0.21, 1.5),
            Edge(2.291, 0.24, 1.5),
        ),
        band=(0.3, 10.0),
        noise=0.075,
        transfer=0.013,
        tail=0.060,
        tail_length=0.250,
        shelf=0.005,
        escape=0.022,
        sky_share=0.55,
        sky_soft=60.0,
        particle_soft=0.5,
        lines=((1.487, 0.06), (7.47, 0.04), (8.04, 0.20), (8.63, 0.04)),
        contamination=(-0.03, 0.12),
    ),
    "mos": CameraParameters(
        smooth_area=(14.7, 66.6, 154, 253, 348, 470, 469, 404, 276, 137, 54.5, 20.3, 6.57, 0.5),
        edges=(
            Edge(0.284, 1.11),
            Edge(0.409, 0.14),
            Edge(0.537, 0.75),
            Edge(1.560, 0.10),
            Edge(1.839, 0.30),
            Edge(2.206, 0.27, 1.5),
            Edge(2.291, 0.23, 1.5),
        ),
        band=(0.3, 10.0),
        noise=0.055,
        transfer=0.014,
        tail=0.070,
        tail_length=0.250,
        shelf=0.025,
        escape=0.020,
        sky_share=0.45,
        sky_soft=60.0,
        particle_soft=0.1,
        lines=((1.487, 0.15), (1.740, 0.10), (5.41, 0.01), (5.90, 0.01), (6.40, 0.01), (9.71, 0.03)),
        contamination=(-0.03, 0.08),
    ),
    "acis_s": CameraParameters(
        smooth_area=(4.0, 98.6, 239, 454, 622, 740, 675, 553, 323, 115, 29.8, 10.5, 1.0, 0.1),
        edges=(
            Edge(0.284, 2.78),
            Edge(0.537, 0.30),
            Edge(1.560, 0.12),
            Edge(2.040, 0.46, 1.5),
            Edge(2.116, 0.17, 1.5),
        ),
        band=(0.5, 8.0),
        noise=0.090,
        transfer=0.009,
        tail=0.010,
        tail_length=0.150,
        shelf=0.006,
        escape=0.020,
        sky_share=0.450,
        sky_soft=60.0,
        particle_soft=0.500,
        lines=((1.487, 0.02), (1.740, 0.04), (2.12, 0.05), (7.47, 0.12)),
        contamination=(-0.2, 2.0),
    ),
    "acis_i": CameraParameters(
        smooth_area=(0.3, 4.54, 36.9, 164, 320, 469, 445, 382, 231, 74.6, 18.5, 3.7, 0.8, 0.1),
        edges=(
            Edge(0.284, 5.30),
            Edge(0.537, 1.17),
            Edge(1.560, 0.12),
            Edge(1.839, 0.41),
            Edge(2.040, 0.46, 1.5),
            Edge(2.116, 0.16, 1.5),
        ),
        band=(0.5, 8.0),
        noise=0.060,
        transfer=0.022,
        tail=0.010,
        tail_length=0.150,
        shelf=0.006,
        escape=0.018,
        sky_share=0.25,
        sky_soft=30.0,
        particle_soft=0.300,
        lines=((1.487, 0.02), (1.740, 0.03), (2.12, 0.05), (7.47, 0.08)),
        contamination=(-0.15, 1.6),
    ),
    "xrt": CameraParameters(
        smooth_area=(4.0, 30.6, 63, 76, 91.7, 112, 103, 96.4, 64.8, 32.9, 10.9, 2.31, 0.5, 0.05),
        edges=(
            Edge(0.284, 3.10),
            Edge(0.409, 0.29),
            Edge(0.537, 0.73),
            Edge(1.560, 0.03),
            Edge(1.839, 0.27),
            Edge(2.206, 0.26, 1.5),
            Edge(2.291, 0.13, 1.5),
        ),
        band=(0.3, 10.0),
        noise=0.105,
        transfer=0.033,
        tail=0.030,
        tail_length=0.200,
        shelf=0.008,
        escape=0.022,
        sky_share=0.60,
        sky_soft=40.0,
        particle_soft=0.2,
        lines=((1.74, 0.02), (2.12, 0.02), (6.40, 0.02), (7.47, 0.10), (8.27, 0.03)),
        contamination=(-0.02, 0.05),
    ),
    "erosita": CameraParameters(
        smooth_area=(11.9, 131, 399, 630, 766, 821, 427, 201, 82.8, 33.4, 15.1, 6.11, 1.7, 0.1),
        edges=(
            Edge(0.284, 1.22),
            Edge(0.409, 0.26),
            Edge(0.537, 0.19),
            Edge(1.560, 0.19),
            Edge(2.206, 0.84, 1.5),
            Edge(2.291, 0.23, 1.5),
        ),
        band=(0.3, 8.0),
        noise=0.050,
        transfer=0.006,
        tail=0.008,
        tail_length=0.150,
        shelf=0.008,
        escape=0.004,
        sky_share=0.600,
        sky_soft=30.0,
        particle_soft=0.200,
        lines=((1.487, 0.03), (6.40, 0.06), (7.06, 0.01), (7.47, 0.02)),
        contamination=(-0.02, 0.05),
    ),
}
