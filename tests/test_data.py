"""The bundled observations are what their script makes, and what their README says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deepspec.io import read_observation

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_observations", DATA / "make_observations.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while the class is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def made_again(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("observations")
    script.main(folder)
    return folder


FILES = sorted(path.name for path in DATA.iterdir() if path.suffix in {".pha", ".arf", ".gz"})


def equal(one, other) -> bool:
    """Equal bytes; a column of arrays of unequal length is compared row by row."""
    if one.dtype == object:
        return len(one) == len(other) and all(map(equal, one, other))
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", FILES)
def test_the_script_makes_the_same_arrays(made_again, name):
    with fits.open(DATA / name, memmap=False) as kept, fits.open(made_again / name, memmap=False) as made:
        assert [table.name for table in kept] == [table.name for table in made]
        for old, new in zip(kept[1:], made[1:], strict=True):
            assert old.columns.names == new.columns.names
            for column in old.columns.names:
                assert equal(old.data[column], new.data[column]), f"{name}[{old.name}] {column}"


def test_the_script_makes_no_other_file(made_again):
    assert sorted(path.name for path in made_again.iterdir()) == FILES


def test_readme_gives_the_counts_and_the_true_parameters(script):
    text = (DATA / "README.md").read_text()
    for index, exposure in enumerate(script.EXPOSURES):
        row = re.search(rf"^\| `{exposure.file}\.pha` .*$", text, re.MULTILINE)[0]
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        background = script.background_counts(script.CAMERAS[exposure.camera], exposure.seconds).sum()
        assert cells[3:] == [f"{exposure.seconds:.0f}", str(script.draw(index)[0].sum()), f"{background:.0f}"]
    for name, source in script.SOURCES.items():
        row = re.search(rf"^\| {name} \| `.*$", text, re.MULTILINE)[0]
        stated = {key: float(value) for key, value in re.findall(r"`(\w+\.\w+)` ([\d.e+-]+)", row)}
        true = {f"tbabs.{key}": value for key, value in source.absorption.items()}
        true |= {f"{part}.{key}": value for part, values in source.emission.items() for key, value in values.items()}
        assert stated == true


@pytest.mark.parametrize("camera", ["a", "b"])
def test_response_is_a_probability_and_an_area(camera):
    response = read_observation(DATA / f"binary_{camera}.pha").response
    total = np.asarray(response.matrix.sum(axis=1)).ravel()
    assert total.max() <= 1.0
    # Photons are lost only near the ends, to channels below the first and above the last.
    inside = (response.edges[:-1] > 0.5) & (response.edges[1:] < 11.7)
    assert total[inside].min() > 0.98
    assert (response.area > 0).all()


@pytest.mark.parametrize("camera", ["a", "b"])
def test_files_fold_the_true_source_as_the_script_did(script, camera):
    """Reader, ARF, RMF and channel offset together: the files predict what the counts were drawn from."""
    index = next(i for i, exposure in enumerate(script.EXPOSURES) if exposure.file == f"binary_{camera}")
    observation = read_observation(DATA / f"binary_{camera}.pha").group("none")
    folded = observation.folded
    first = int(np.argmin(np.abs(script.ENERGY_EDGES - folded.edges[0])))
    flux = script.photon_flux(script.SOURCES["binary"])[first : first + len(folded.edges) - 1]
    expected, background = script.expected_counts(script.EXPOSURES[index])
    net = expected - background * (script.SOURCE_REGION / script.BACKGROUND_REGION)
    np.testing.assert_allclose(flux @ folded.matrix, net, rtol=3e-6, atol=1e-8)
    pull = (observation.binned.counts - expected) / np.sqrt(expected)
    assert abs(pull.mean()) < 5 / np.sqrt(len(pull))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".pha")])
def test_links_are_relative(name):
    header = fits.getheader(DATA / name, 1)
    for key in ("ANCRFILE", "RESPFILE", "BACKFILE"):
        assert "/" not in header[key]
        assert header[key] == "none" or (DATA / header[key]).is_file()


def test_they_are_small():
    assert sum((DATA / name).stat().st_size for name in FILES) < 500_000
