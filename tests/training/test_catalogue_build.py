"""From folders to a catalogue: what is found, what is left out and why, and what a kill leaves."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table

from deepspec.errors import UserError
from deepspec.io.observations import read_observation
from deepspec.learned.grids import CENTRES, DETECTOR_COUNT, STEP
from deepspec.training import catalogue_build
from deepspec.training.catalogue_build import build
from deepspec.training.dataset import Dataset, describe
from deepspec.training.products import parse_matrices, walk
from deepspec.training.rebinning import bins_of_channels, overlap
from tests.training.catalogue_files import RMF, write_matrix, write_product

ROWS = ("counts", "background", "valid", "ratio", "exposure", "arf", "rmf", "name", "source", "hashes")


@pytest.fixture
def pps(tmp_path):
    """Six products, one of them faint."""
    for number in range(1, 7):
        write_product(tmp_path / "pps" / str(number % 2), number, scale=50 if number == 6 else 1)
    write_matrix(tmp_path / "rmf")
    return tmp_path / "pps"


def make(pps, out="xmm.h5", **options):
    return build([pps], pps.parent / out, **{"rmf": [pps.parent / "rmf"], "jobs": 1, **options})


def assert_same(first, second):
    with h5py.File(first) as a, h5py.File(second) as b:
        for name in ROWS:
            np.testing.assert_array_equal(a["spectra"][name][()], b["spectra"][name][()])
        np.testing.assert_array_equal(a["rmf/matrix"][()], b["rmf/matrix"][()])


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_rows_hold_what_the_files_hold(pps):
    made = make(pps)
    assert (made.kept, made.looked_at, made.rejected) == (5, 6, {"few counts": 1})
    assert not (pps.parent / "xmm.h5.parts").exists()
    data = Dataset(made.path)
    assert data.rmf_names == [RMF]
    product = next(pps.rglob("*SRSPEC0001.FTZ"))
    observation = read_observation(
        product, rmf=pps.parent / "rmf" / RMF, arf=str(product).replace("SRSPEC", "SRCARF"),
        background=str(product).replace("SRSPEC", "BGSPEC"),
    )  # fmt: skip
    spectrum = observation.spectrum
    place = bins_of_channels(spectrum.energy_bounds)
    at = list(data.column("number")).index(1)
    row = data.batch([at])
    inside = place >= 0
    assert row["counts"].sum() == spectrum.counts[inside].sum()
    assert row["background"].sum() == spectrum.background[inside].sum()
    assert row["ratio"][0, 0] == pytest.approx(spectrum.ratio[0])
    assert set(np.flatnonzero(row["valid"][0])) == set(place[inside])
    assert data.column("hashes")[at, 0].tobytes().hex() == spectrum.sha256
    assert [v.decode() for v in (data.column("camera")[at], data.column("source")[at])] == ["pn", "0123456789/1"]


def folded_both_ways(product, matrix, area, background, data, at):
    """A power law through the whole response and through the catalogue's, in bins where both have channels."""
    observation = read_observation(product, rmf=matrix, arf=area, background=background)
    response, place = observation.response, bins_of_channels(observation.spectrum.energy_bounds)
    density = lambda energy: energy**-1.7  # noqa: E731
    width = np.diff(response.edges)
    middle = response.edges[:-1] + 0.5 * width
    used = (middle > 0.2) & (middle < 14.0)
    photons = np.where(used, density(middle) * width, 0.0) * response.area
    whole = np.bincount(place[place >= 0], weights=(photons @ response.matrix)[place >= 0], minlength=DETECTOR_COUNT)
    shape = torch.as_tensor(density(CENTRES) * CENTRES * STEP)[None]
    return observation.spectrum.exposure * whole, data.fold(shape, [at])[0].numpy()


def test_folding_agrees_with_the_whole_response_on_real_products(shared_data, tmp_path):
    rmf = shared_data / "responses/epn_e3_ef20_sdY6_v19.0.rmf.gz"
    source = shared_data / "field_4xmm/P0760940101PNS003SRSPEC0001.FTZ"
    (tmp_path / "one").mkdir()
    for kind in ("SRSPEC", "BGSPEC", "SRCARF"):
        name = source.name.replace("SRSPEC", kind)
        (tmp_path / "one" / name).symlink_to(source.with_name(name))
    made = build([tmp_path / "one"], tmp_path / "one.h5", rmf=[f"epn_*={rmf}"])
    area, background = (str(source).replace("SRSPEC", kind) for kind in ("SRCARF", "BGSPEC"))
    whole, ours = folded_both_ways(source, rmf, area, background, Dataset(made.path), 0)
    assert ours.sum() == pytest.approx(whole.sum(), rel=2e-3)
    np.testing.assert_allclose(ours, whole, rtol=0.01)


def test_a_field_of_real_products(shared_data, tmp_path):
    folder = shared_data / "responses"
    rmf = [f"epn_*={folder}/epn_e3_ef20_sdY6_v19.0.rmf.gz"]
    made = build([shared_data / "field_4xmm"], tmp_path / "xmm.h5", rmf=rmf, min_counts=1000, jobs=1)
    assert made.rejected["no matrix"] > 3
    assert sum(made.missing.values()) == made.rejected["no matrix"]
    rmf += [f"{name}_*={folder}/{name}_5ev_substitute.rmf.gz" for name in ("m1", "m2")]
    again = build([shared_data / "field_4xmm"], tmp_path / "xmm.h5", rmf=rmf, min_counts=1000, jobs=1, resume=True)
    facts = describe(Dataset(again.path))
    assert set(facts.cameras) == {"pn", "mos1", "mos2"}
    assert "no matrix" not in facts.rejected
    assert facts.counts["least"] >= 1000


def test_area_is_averaged_not_sampled():
    edges = np.geomspace(0.1, 20.0, 77)
    mean = overlap(edges)
    np.testing.assert_allclose(mean @ np.ones(76), 1.0)
    rising = np.log(edges[1:] * edges[:-1])
    assert (mean @ rising).sum() * STEP == pytest.approx(2 * np.log(14 / 0.2) * np.log(14 * 0.2) / 2, rel=1e-3)


def test_ordinary_folders(tmp_path, pps):
    from small_files import write_small

    (tmp_path / "other").mkdir()
    write_small(tmp_path / "other")
    made = build([tmp_path / "other", pps], tmp_path / "both.h5", rmf=[tmp_path / "rmf"], jobs=1)
    assert made.kept == 6
    assert describe(Dataset(made.path)).cameras == {"ccd": 1, "pn": 5}


def test_band_and_bad_channels_leave_bins_out(tmp_path, pps):
    from small_files import rewrite

    wide = Dataset(make(pps).path).batch([0])["valid"][0]
    narrow = Dataset(make(pps, "narrow.h5", band=(1.0, 5.0)).path).batch([0])
    assert 0 < narrow["valid"].sum() < wide.sum()
    assert narrow["counts"][~narrow["valid"]].sum() == 0
    product = next(pps.rglob("*SRSPEC0001.FTZ"))
    import gzip

    product.write_bytes(gzip.decompress(product.read_bytes()))
    rewrite(product, lambda hdus: hdus[1].data["QUALITY"].__setitem__(slice(20, 30), 5))
    data = Dataset(make(pps, "flagged.h5").path)
    flagged = data.batch([list(data.column("number")).index(1)])["valid"][0]
    assert flagged.sum() == wide.sum() - 10


# --- what is left out -------------------------------------------------------------------------------------------------


def test_flags_of_a_table(pps, tmp_path):
    table = Table({"OBS_ID": ["0123456789"] * 3, "SRC_NUM": [3, 1, 2], "SUM_FLAG": [0, 4, 2], "SRCID": [30, 10, 20]})
    table.write(tmp_path / "cat.fits")
    made = make(pps, table=tmp_path / "cat.fits")
    assert made.rejected == {"not in table": 3, "flag": 1}
    assert sorted(Dataset(made.path).column("source")) == [b"SRCID 20", b"SRCID 30"]
    Table({"OBS_ID": ["1"]}).write(tmp_path / "poor.fits")
    with pytest.raises(UserError, match="no column SRC_NUM or SUM_FLAG"):
        make(pps, "x.h5", table=tmp_path / "poor.fits")


def test_every_refusal_is_logged(pps):
    files = {int(p.name[-8:-4], 16): p for p in pps.rglob("*SRSPEC*")}
    files[1].write_bytes(files[1].read_bytes()[:300])
    files[2].with_name(files[2].name.replace("SRSPEC", "BGSPEC")).unlink()
    files[3].with_name(files[3].name.replace("SRSPEC", "SRCARF")).unlink()
    write_product(pps / "copy", 4)
    made = make(pps)
    with open(made.log) as stream:
        rows = list(csv.DictReader(stream))
    assert {row["reason"] for row in rows} == {"unreadable", "no background", "no area", "few counts", "twice"}
    assert made.kept == 2
    assert "damaged or incomplete" in next(row for row in rows if row["reason"] == "unreadable")["detail"]


def test_mistakes_are_one_sentence(pps, tmp_path):
    (tmp_path / "empty").mkdir()
    mistakes = {
        "holds no spectra": {"folders": [tmp_path / "empty"]},
        "no such folder; give folders": {"folders": [tmp_path / "x"]},
        f"6 spectra can be used: 5 have no response matrix .RESPFILE {RMF}.; .*--rmf {RMF}=FILE": {"rmf": []},
        "--rmf nowhere: no such folder": {"rmf": ["nowhere"]},
        "--rmf a=nowhere: no such file": {"rmf": ["a=nowhere"]},
        "is a file without a name; give a folder, or NAME=": {"rmf": [pps.parent / "rmf" / RMF]},
        "none of the 6 spectra is left: 6 few counts": {"min_counts": 10**6},
        "--band: 20:30 keV leaves nothing": {"band": (20, 30)},
        "--min-counts: 0 is not": {"min_counts": 0},
        "--jobs: 0 is not": {"jobs": 0},
        "its folder does not exist": {"out": tmp_path / "x" / "xmm.h5"},
    }
    for words, options in mistakes.items():
        given = {"folders": [pps], "out": tmp_path / "xmm.h5", "rmf": [pps.parent / "rmf"], "jobs": 1, **options}
        with pytest.raises(UserError, match=words):
            build(**given)
        assert not list(tmp_path.glob("xmm.h5*")), words


def test_matrices_are_found_by_name(tmp_path):
    write_matrix(tmp_path / "ccf", "epn_small_v20.0.rmf")
    write_matrix(tmp_path, "other.rmf")
    found = parse_matrices(
        [f"m1_*={tmp_path}/other.rmf", tmp_path / "ccf", f"m1_a.rmf={tmp_path}/ccf/epn_small_v20.0.rmf"]
    )
    assert found.find(RMF, tmp_path).endswith("epn_small_v20.0.rmf")
    assert found.find("m1_b.rmf", tmp_path).endswith("other.rmf")
    assert found.find("m1_a.rmf", tmp_path).endswith("epn_small_v20.0.rmf")
    assert found.find("other.rmf", tmp_path).endswith("other.rmf")
    assert found.find("nothing.rmf", tmp_path) is None


# --- going on ---------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_overwritten(pps):
    first = make(pps)
    before = (pps.parent / "xmm.h5").read_bytes()
    with pytest.raises(UserError, match=r"is there already; add --resume .*or --clobber"):
        make(pps)
    assert make(pps, resume=True).looked_at == 0
    assert (pps.parent / "xmm.h5").read_bytes() == before
    with pytest.raises(UserError, match="was begun with min_counts 200, not 300"):
        make(pps, resume=True, min_counts=300)
    assert make(pps, clobber=True).kept == first.kept


def test_new_products_are_added(pps):
    make(pps)
    write_product(pps / "1", 9)
    added = make(pps, resume=True)
    assert (added.kept, added.looked_at) == (6, 1)
    assert make(pps, "anew.h5").kept == 6


def test_several_processes_make_the_same_file(pps):
    make(pps, "one.h5")
    make(pps, "two.h5", jobs=2)
    assert_same(pps.parent / "one.h5", pps.parent / "two.h5")


def test_an_interrupted_build_keeps_what_was_done(pps, monkeypatch):
    make(pps, "whole.h5")
    monkeypatch.setattr(catalogue_build, "PART", 2)
    told = []

    def tell(what, done, total):
        told.append((done, total))
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(pps, tell=tell)
    assert told[-1] == (5, 6)
    with pytest.raises(UserError, match="is not finished"):
        Dataset(pps.parent / "xmm.h5")
    assert make(pps, resume=True).looked_at == 1
    assert_same(pps.parent / "whole.h5", pps.parent / "xmm.h5")


KILLED = """
import sys
from deepspec.training import catalogue_build as b
b.PART = 4
b.build([sys.argv[1]], sys.argv[2], rmf=[sys.argv[3]], jobs=int(sys.argv[4]), resume=True, min_counts=100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_build_goes_on(pps, jobs):
    for number in range(10, 90):
        write_product(pps / "many", number)
    make(pps, "whole.h5", min_counts=100)
    out = pps.parent / "xmm.h5"
    command = [sys.executable, "-c", KILLED, pps, out, pps.parent / "rmf", str(jobs)]
    kills = 0
    for wanted in (1, 5, 11):
        child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while child.poll() is None and len(list(out.parent.glob("xmm.h5.parts/part-*.h5"))) < wanted:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        for part in out.parent.glob("xmm.h5.parts/part-*.h5"):
            Dataset(part)
    assert kills >= 2
    make(pps, resume=True, min_counts=100)
    assert_same(pps.parent / "whole.h5", out)


def test_a_kill_after_the_renaming_counts_no_spectrum_twice(pps, monkeypatch):
    make(pps, "whole.h5")
    monkeypatch.setattr(catalogue_build.Parts.__init__.__globals__["shutil"], "rmtree", lambda *a, **k: None)
    make(pps)
    assert (pps.parent / "xmm.h5.parts").is_dir()
    monkeypatch.undo()
    write_product(pps / "1", 9)
    assert make(pps, resume=True).kept == 6


def test_walk_is_in_order(pps):
    found, again = walk([pps, pps])
    assert [p.number for p in found] == [2, 4, 6, 1, 3, 5]
    assert len(again) == 6
