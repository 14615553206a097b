"""PHA files and their links: what each kind of file becomes, and one sentence for each mistake."""

from __future__ import annotations

import gzip
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from deepspec.errors import UserError
from deepspec.io import read_observation, read_response, read_spectrum
from small_files import N_CHANNEL, rewrite, small_spectrum, with_cards, with_columns, without_tlmin

# --- what is read ---------------------------------------------------------------------------------------------------


def test_spectrum_background_and_response_come_together(path):
    observation = read_observation(path)
    expected = small_spectrum()
    spectrum = observation.spectrum
    assert observation.name == "src"
    assert np.array_equal(spectrum.counts, expected.counts)
    assert np.array_equal(spectrum.background, expected.background)
    assert spectrum.ratio == pytest.approx(0.25)
    assert spectrum.exposure == 1000.0
    assert spectrum.header["TELESCOP"] == "SMALL"
    assert len(spectrum.sha256) == 64
    assert len(observation.response.hashes) == 2
    assert observation.notes == ()


def test_nothing_is_printed_logged_or_warned(path, capfd, caplog):
    rewrite(path.with_name("src.rmf"), without_tlmin)
    with caplog.at_level(logging.DEBUG):
        read_observation(path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_fresh_process_prints_nothing_either(path):
    """The first import of Sherpa sets up its own logging."""
    up = np.arange(N_CHANNEL)
    rewrite(path, lambda hdus: with_columns(hdus, BACKGROUND_UP=up, BACKGROUND_DOWN=up, STAT_ERR=np.ones(N_CHANNEL)))
    rewrite(path.with_name("src.rmf"), without_tlmin)
    program = f"from deepspec.io import read_observation; read_observation({str(path)!r})"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_library_logger_is_left_as_it_was(path):
    logger = logging.getLogger("sherpa")
    read_observation(path)
    handlers = logger.handlers[:]
    read_observation(path)
    assert logger.handlers == handlers


def test_links_are_relative_to_the_file(path, monkeypatch):
    monkeypatch.chdir("/")
    assert read_observation(path).response is not None


@pytest.mark.parametrize("name", ["src.pha", "src.rmf", "src.arf", "src_bkg.pha"])
def test_a_gzipped_file_is_found_under_its_plain_name(path, name):
    file = path.with_name(name)
    file.with_name(f"{name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert read_observation(path).spectrum.backgrounds


def test_a_plain_file_may_be_called_gz(path):
    shutil.move(path, path.with_name("src.pha.gz"))
    assert read_observation(path.with_name("src.pha.gz")).response is not None


def test_overrides_take_the_place_of_links(path, tmp_path):
    rewrite(path, with_cards(RESPFILE="gone.rmf", ANCRFILE="gone.arf", BACKFILE="gone.pha"))
    files = {"rmf": tmp_path / "src.rmf", "arf": tmp_path / "src.arf", "background": tmp_path / "src_bkg.pha"}
    observation = read_observation(path, **files)
    assert observation.response.arf.endswith("src.arf")
    assert len(observation.spectrum.backgrounds) == 1
    both = read_observation(path, **{**files, "background": [files["background"]] * 2})
    assert len(both.spectrum.backgrounds) == 2
    assert both.spectrum.ratio == pytest.approx(0.125)


def test_none_leaves_out(path):
    assert read_observation(path, background="none").spectrum.backgrounds == ()
    assert read_observation(path, rmf="NONE").response is None
    assert read_observation(path, arf="none").response.area.max() == 1.0


@pytest.mark.parametrize("value", ["none", "NONE", "  ", ""])
def test_blank_links_name_nothing(path, value):
    rewrite(path, with_cards(BACKFILE=value, RESPFILE=value, ANCRFILE=value))
    observation = read_observation(path)
    assert observation.response is None
    assert observation.spectrum.backgrounds == ()


def test_canned_matrix_by_name_in_a_folder(path, tmp_path, monkeypatch):
    folder = tmp_path / "canned"
    folder.mkdir()
    shutil.move(tmp_path / "src.rmf", folder / "cam_v1.2.rmf")
    rewrite(path, with_cards(RESPFILE="cam.rmf"))
    with pytest.raises(UserError, match=r"cam\.rmf") as caught:
        read_observation(path)
    assert "--rmf-dir" in caught.value.remedy
    assert "--rmf FILE" in caught.value.remedy
    assert read_observation(path, rmf_dir=folder).response.rmf.endswith("cam_v1.2.rmf")
    shutil.copy(folder / "cam_v1.2.rmf", folder / "cam_v1.10.rmf")
    assert read_observation(path, rmf_dir=folder).response.rmf.endswith("cam_v1.10.rmf")
    shutil.copy(folder / "cam_v1.2.rmf", folder / "cam.rmf")
    monkeypatch.setenv("DEEPSPEC_RMF_DIR", str(folder))
    assert read_observation(path).response.rmf.endswith("cam.rmf")


def test_rates_are_counts_again(path):
    counts = small_spectrum().counts
    rate = (counts / 1000.0).astype(np.float32).astype(float)
    rewrite(path, lambda hdus: with_columns(hdus, drop=("COUNTS",), RATE=rate))
    spectrum = read_observation(path).spectrum
    assert spectrum.is_rate
    assert np.array_equal(spectrum.counts, counts)
    assert spectrum.poisson
    assert "rounded to counts" in spectrum.notes[0]


def test_rates_that_are_no_counts_stay_fractional_with_their_errors(path):
    rate = np.linspace(1e-5, 1e-4, N_CHANNEL)
    rewrite(path, lambda hdus: with_columns(hdus, drop=("COUNTS",), RATE=rate, STAT_ERR=0.1 * rate))
    spectrum = read_observation(path).spectrum
    assert spectrum.counts == pytest.approx(1000 * rate)
    assert spectrum.error == pytest.approx(100 * rate)
    assert not spectrum.poisson


def test_tiny_rates_are_not_rounded_to_nothing(path):
    rate = np.full(N_CHANNEL, 1e-9)
    rewrite(path, lambda hdus: with_columns(hdus, drop=("COUNTS",), RATE=rate))
    assert read_observation(path).spectrum.counts.sum() > 0


def test_columns_of_scale_factors(path):
    backscal, areascal = np.linspace(0.01, 0.02, N_CHANNEL), np.linspace(1.0, 0.5, N_CHANNEL)
    areascal[4] = 0.0

    def change(hdus):
        hdus[1].header.remove("BACKSCAL")
        hdus[1].header.remove("AREASCAL")
        with_columns(hdus, BACKSCAL=backscal, AREASCAL=areascal)

    rewrite(path, change)
    observation = read_observation(path)
    assert np.array_equal(observation.spectrum.backscal, backscal)
    assert np.array_equal(observation.spectrum.areascal, areascal)
    assert not observation.spectrum.noticed[4]


def test_errors_are_in_force_only_when_asked_for(path):
    rewrite(path, lambda hdus: with_columns(hdus, STAT_ERR=np.full(N_CHANNEL, 5.0)))
    assert read_observation(path).binned.error is None
    assert read_observation(path, use_errors=True).binned.error == pytest.approx(5.0)


def test_what_a_fit_does_not_act_on_is_noted(path):
    rewrite(path, with_cards(CORRFILE="cor.pha", HDUCLAS2="NET"))
    rewrite(path, lambda hdus: with_columns(hdus, SYS_ERR=np.full(N_CHANNEL, 0.02)))
    notes = " ".join(read_observation(path).notes)
    for words in ("already subtracted", "cor.pha (CORRFILE) is not used", "SYS_ERR"):
        assert words in notes


def test_asking_for_errors_that_are_not_there_is_noted(path):
    observation = read_observation(path, use_errors=True)
    assert observation.binned.poisson
    assert observation.binned.background_poisson
    assert any("no STAT_ERR" in note for note in observation.notes)


def test_background_in_the_same_file(path, tmp_path):
    with fits.open(path.with_name("src_bkg.pha")) as other:
        extension = other[1].copy()
    rewrite(path, lambda hdus: hdus.append(extension))
    rewrite(path, with_cards(BACKFILE="src.pha"))
    path.with_name("src_bkg.pha").unlink()
    renamed = shutil.move(path, tmp_path / "renamed.pha")
    spectrum = read_observation(renamed).spectrum
    assert np.array_equal(spectrum.background, small_spectrum().background)
    assert np.array_equal(spectrum.counts, small_spectrum().counts)


def test_columns_of_backgrounds_become_two_backgrounds(path):
    up, down = np.arange(N_CHANNEL), np.ones(N_CHANNEL, dtype=int)
    rewrite(path, with_cards(BACKFILE="none", BACKSCUP=4.0, BACKSCDN=5.0))
    rewrite(path, lambda hdus: with_columns(hdus, BACKGROUND_UP=up, BACKGROUND_DOWN=down))
    backgrounds = read_observation(path).spectrum.backgrounds
    assert [b.counts.sum() for b in backgrounds] == [up.sum(), down.sum()]
    assert [b.backscal[0] for b in backgrounds] == [4.0, 5.0]


def test_scaled_up_background_is_scaled_back(path):
    """Filter-wheel-closed spectra: counts times a factor, exposure to match (the PSR J0855 sets)."""
    true = small_spectrum().backgrounds[0]
    file = path.with_name("src_bkg.pha")
    rewrite(file, lambda hdus: with_columns(hdus, COUNTS=true.counts * 11.18870833))
    rewrite(file, with_cards(EXPOSURE=true.exposure * 11.18870833))
    spectrum = read_observation(path).spectrum
    assert np.array_equal(spectrum.background, true.counts)
    assert spectrum.ratio == pytest.approx(0.25)
    assert spectrum.backgrounds[0].poisson
    assert any("whole multiples of 11.1887" in note for note in read_observation(path).notes)


def test_fractional_background_that_is_no_multiple_is_not_poisson(path):
    counts = np.random.default_rng(1).gamma(4.0, 2.0, N_CHANNEL)
    rewrite(path.with_name("src_bkg.pha"), lambda hdus: with_columns(hdus, COUNTS=counts))
    binned = read_observation(path).binned
    assert not binned.background_poisson
    assert binned.background_error == pytest.approx(np.sqrt(counts))


def type_two(path, rows=3):
    """A type II file: counts times 1, 2, 3, with exposures of 100, 200, 300 s in a column."""
    with fits.open(path) as hdus:
        header = hdus[1].header.copy(strip=True)
        counts, channels = hdus[1].data["COUNTS"], hdus[1].data["CHANNEL"]
    for key in ("EXPOSURE", "TLMIN1", "TLMAX1"):
        header.remove(key)
    number = np.arange(1, rows + 1)
    columns = [
        fits.Column(name="SPEC_NUM", format="I", array=number),
        fits.Column(name="CHANNEL", format=f"{N_CHANNEL}J", array=np.tile(channels, (rows, 1))),
        fits.Column(name="COUNTS", format=f"{N_CHANNEL}J", array=number[:, None] * counts),
        fits.Column(name="EXPOSURE", format="D", array=100.0 * number),
        fits.Column(name="RESPFILE", format="20A", array=["src.rmf"] * rows),
    ]
    fits.BinTableHDU.from_columns(columns, header=header, name="SPECTRUM").writeto(path, overwrite=True)


def test_rows_of_a_type_two_file(path):
    type_two(path)
    for row in (1, 3):
        for observation in (read_observation(path, row=row), read_observation(f"{path}{{{row}}}")):
            assert observation.spectrum.counts.sum() == row * small_spectrum().counts.sum()
            assert observation.spectrum.exposure == 100.0 * row
            assert observation.response is not None
            assert observation.name == f"src_{row}" or observation.name == "src"


def test_some_channels_of_the_matrix(path):
    """A file that holds channels 11 to 40 of 64."""

    def change(hdus):
        hdus[1].data = hdus[1].data[10:40]

    rewrite(path, change)
    rewrite(path, with_cards(BACKFILE="none"))
    observation = read_observation(path)
    assert len(observation.spectrum) == 30
    whole = read_response(path.with_name("src.rmf"), path.with_name("src.arf"))
    assert np.array_equal(observation.spectrum.energy_bounds, whole.energy_bounds[10:40])
    assert (observation.response.matrix != whole.matrix[:, 10:40]).nnz == 0


# --- one sentence per mistake ---------------------------------------------------------------------------------------


def no_numbers(hdus):
    with_columns(hdus, COUNTS=np.where(np.arange(N_CHANNEL) == 3, np.nan, 1.0))


def negative(hdus):
    with_columns(hdus, COUNTS=np.where(np.arange(N_CHANNEL) == 3, -1, 1))


BROKEN = {
    "zero exposure": (with_cards(EXPOSURE=0.0), "EXPOSURE is 0 s"),
    "negative exposure": (with_cards(EXPOSURE=-5.0), "EXPOSURE is -5 s"),
    "no exposure": (with_cards(EXPOSURE=None), "has no EXPOSURE"),
    "text for an exposure": (with_cards(EXPOSURE="long"), "has no EXPOSURE"),
    "zero backscal": (with_cards(BACKSCAL=0.0), "BACKSCAL is not positive"),
    "nan counts": (no_numbers, "not numbers"),
    "negative counts": (negative, "negative counts and no errors"),
    "no such matrix": (with_cards(RESPFILE="no.rmf"), r"no\.rmf \(RESPFILE\) is not there"),
    "no such area": (with_cards(ANCRFILE="no.arf"), r"no\.arf \(ANCRFILE\) is not there"),
    "no such background": (with_cards(BACKFILE="no.pha"), r"no\.pha \(BACKFILE\) is not there"),
    "no channel column": (lambda hdus: with_columns(hdus, drop=("CHANNEL",)), "not a spectrum"),
    "no counts column": (lambda hdus: with_columns(hdus, drop=("COUNTS",)), "not a spectrum"),
    "matrix for a background": (with_cards(BACKFILE="src.rmf"), "it is a response matrix"),
    "area for a matrix": (with_cards(RESPFILE="src.arf"), "it is an effective area"),
    "matrix for an area": (with_cards(ANCRFILE="src.rmf"), "holds no effective area"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_spectra_are_refused_in_one_sentence(path, what):
    change, words = BROKEN[what]
    rewrite(path, change)
    with pytest.raises(UserError, match=words) as caught:
        read_observation(path)
    assert str(path.parent) in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_nan_in_a_bad_channel_is_no_matter(path):
    quality = np.where(np.arange(N_CHANNEL) == 3, 1, 0)
    rewrite(path, lambda hdus: (no_numbers(hdus), with_columns(hdus, QUALITY=quality)))
    assert read_observation(path).spectrum.counts[3] == 0


def test_negative_counts_with_errors_are_read(path):
    rewrite(path, lambda hdus: (negative(hdus), with_columns(hdus, STAT_ERR=np.ones(N_CHANNEL))))
    assert not read_observation(path).binned.poisson


def test_all_channels_bad(path):
    rewrite(path, lambda hdus: with_columns(hdus, QUALITY=np.ones(N_CHANNEL, dtype=int)))
    with pytest.raises(UserError, match="all channels are flagged bad"):
        read_observation(path).check_fittable()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.pha", "no such file"),
        ("", "is a folder"),
        ("text.pha", "not a FITS file"),
        ("empty.pha", "empty file"),
    ],
)
def test_files_that_are_none(tmp_path, name, words):
    (tmp_path / "text.pha").write_text("channel counts\n1 5\n")
    (tmp_path / "empty.pha").write_bytes(b"")
    with pytest.raises(UserError, match=words):
        read_observation(tmp_path / name)


@pytest.mark.parametrize("option", ["arf", "rmf", "background"])
def test_files_named_on_the_command_line_that_are_missing(path, option):
    with pytest.raises(UserError, match=r"elsewhere\.fits: no such file"):
        read_observation(path, **{option: "elsewhere.fits"})


def test_rows_that_are_not_there(path):
    with pytest.raises(UserError, match="holds one spectrum"):
        read_observation(path, row=2)
    type_two(path)
    with pytest.raises(UserError, match="holds 3 spectra") as caught:
        read_observation(path)
    assert "src.pha{1}" in caught.value.remedy
    for row in (0, 4):
        with pytest.raises(UserError, match="choose a row from 1 to 3"):
            read_observation(path, row=row)


def test_matrix_of_other_channels(path):
    def change(hdus):
        hdus[1].data = hdus[1].data[:40]
        hdus[1].header["DETCHANS"] = 40

    rewrite(path, change)
    rewrite(path, with_cards(BACKFILE="none", DETCHANS=40))
    with pytest.raises(UserError, match=r"has 40 channels and its response matrix src\.rmf has 64"):
        read_observation(path)


def test_background_of_other_channels(path):
    def change(hdus):
        hdus[1].data = hdus[1].data[:40]

    rewrite(path.with_name("src_bkg.pha"), change)
    with pytest.raises(UserError, match=r"has 40 channels and the spectrum src\.pha has 64"):
        read_observation(path)


def test_without_strict_what_is_missing_becomes_a_note(path):
    rewrite(path, with_cards(RESPFILE="no.rmf", BACKFILE="no.pha"))
    observation = read_observation(path, strict=False)
    assert observation.response is None
    assert sum("is not there" in note for note in observation.notes) == 2


def test_only_the_spectrum_is_read_by_read_spectrum(path):
    spectrum, links = read_spectrum(path)
    assert spectrum.backgrounds == ()
    assert (links.arf, links.rmf, links.background) == ("src.arf", "src.rmf", "src_bkg.pha")
