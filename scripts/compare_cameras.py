"""Compare the cameras of `deepspec.training.cameras` with real responses; write table and figure of docs/cameras.md.

    python scripts/compare_cameras.py FOLDER [PAGE.md]

FOLDER holds the sets named in `REAL`, each with a spectrum that names its ARF and RMF.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.ticker import NullFormatter

from deepspec.io import read_observation
from deepspec.learned.grids import CENTRES, DETECTOR_EDGES, EDGES
from deepspec.plots.style import COLOURS, new_figure
from deepspec.response import Response
from deepspec.training.camera_files import camera_from_response
from deepspec.training.cameras import CAMERAS, Camera, camera, parameters, resolution

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- cameras from here -->\n", "<!-- cameras to here -->"
REAL = {
    "pn": ("pn_ngc7793_ulx4", "pn_mcg6_30_15", "pn_psrj0855"),
    "mos": ("mos1_psrj0855", "mos2_ngc7793_ulx4"),
    "acis_s": ("acis_q1127", "acis_m31_r0043", "acis_psrj0855"),
    "acis_i": ("acis_cdfs179",),
    "xrt": ("xrt_pc_op313",),
    "erosita": ("erosita_pks0447",),
}
#: Energies at which rows of the matrices are drawn [keV].
ROWS = (0.5, 1.0, 2.5, 6.0)


def difference(ours: np.ndarray, real: np.ndarray) -> float:
    """Rms of ln(ours / real) about its mean where both are positive: shapes are compared, not sizes."""
    both = (ours > 0) & (real > 0)
    return float(np.log(ours[both] / real[both]).std())


def width(response: Response, energy: float) -> float:
    """FWHM at a nominal energy [eV]."""
    nominal = response.energy_bounds.mean(axis=1)
    own = response.resolution * np.ptp(response.energy_bounds, axis=1)
    return 1e3 * float(np.interp(energy, nominal, own))


def row(name: str, folder: str, real: Camera, response: Response) -> str:
    """One line of the table."""
    ours, of = camera(name), parameters(name)
    counts = [CENTRES**-0.8 @ matrix for matrix in (ours.matrix, real.matrix)]
    widths = [f"{1e3 * float(resolution(of, e)):.0f} / {width(response, e):.0f}" for e in (1.0, 6.0)]
    area = f"{100 * difference(ours.area, real.area):.1f} %"
    return f"| {name} | {folder} | {area} | {100 * difference(*counts):.1f} % | {widths[0]} | {widths[1]} |"


def figure(real: dict[str, list[Camera]], path: Path) -> None:
    """Areas, rows of the matrices and backgrounds; ours thick, real thin."""
    made = new_figure(13.0, 14.0, layout="constrained")
    axes = made.subplots(len(CAMERAS), len(ROWS) + 2, squeeze=False)
    middle, bins = 0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1]), np.diff(DETECTOR_EDGES)
    for line, name in zip(axes, CAMERAS, strict=True):
        for number, each in enumerate((camera(name), *real[name])):
            style = {"color": "black", "lw": 1.8} if number == 0 else {"color": COLOURS[number - 1], "lw": 0.9}
            used = each.area > 0
            line[0].loglog(middle[used], each.area[used], **style)
            for panel, energy in zip(line[1:-1], ROWS, strict=True):
                response = each.matrix[np.searchsorted(EDGES, energy) - 1]
                panel.semilogy(middle, response / response.sum() / bins, drawstyle="steps-mid", **style)
                panel.set(ylim=(1e-3, 30.0), xlim=(0.3, 1.4 * energy), title=f"{energy:g} keV photons")
            line[-1].loglog(middle[used], each.background[used] / bins[used], drawstyle="steps-mid", **style)
        line[0].set(ylabel=name, title="area [cm$^2$]")
        line[-1].set(title="background / keV")
        for panel in (line[0], line[-1]):
            panel.set_xticks([0.5, 1.0, 2.0, 5.0], ["0.5", "1", "2", "5"])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_minor_formatter(NullFormatter())
    made.supxlabel("energy [keV]")
    made.savefig(path, dpi=70)


def main() -> None:
    """Write the table into the page, and the figure beside it."""
    folder = Path(sys.argv[1])
    page = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs/cameras.md"
    lines = [
        "| camera | real response | area, rms | counts of a power law, rms | FWHM at 1 keV [eV] | at 6 keV [eV] |",
        "|---|---|---|---|---|---|",
    ]
    real: dict[str, list[Camera]] = {name: [] for name in CAMERAS}
    for name, sets in REAL.items():
        for each in sets:
            observation = read_observation(next((folder / each).glob("src.pha*")))
            response = observation.response
            made = camera_from_response(each, response, observation.spectrum.backgrounds, like=name)
            real[name].append(made)
            lines.append(row(name, each, made, response))
    text = page.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    page.write_text(before + "\n" + "\n".join(lines) + "\n\n" + after)
    (page.parent / "images").mkdir(exist_ok=True)
    figure(real, page.parent / "images/cameras.png")


if __name__ == "__main__":
    main()
