"""Real files that are awkward: each loads right or is refused in one sentence, as written here."""

from __future__ import annotations

import numpy as np
import pytest

from deepspec.errors import UserError
from deepspec.io import read_observation, read_response, read_spectrum

#: name -> (channels, sum of counts, Poisson, number of backgrounds): spectra that load, with what is linked left out.
LOADED = {
    "P0112880201R1S004BGSPEC1003.FTZ": (3600, 1824, True, 0),
    "P0112880201R1S004SBSPEC1003.FTZ": (3600, 4122, True, 0),
    "P0112880201R1S004SRSPEC1003.FTZ": (3600, 2724.0, False, 0),
    "P0677180601R1S004SRSPEC1001.FTZ": (3600, -138.0, False, 0),
    "PN_named_but_is_MOS2.grp.gz": (1501, 789, True, 0),
    "acis_685chan_grp.pha.gz": (685, 78, True, 0),
    "acis_dangling_links.pha": (1024, 51929, True, 0),
    "acis_m33_rate.pha.gz": (1024, 10558, True, 0),
    "acis_q1127_grp30.pha.gz": (1024, 66686, True, 0),
    "heg_meg_bkg_updown_3c120_meg_p1.pha.gz": (8192, 33930, True, 2),
    "hrci_arlac_pha3.fits.gz": (1024, 4965, True, 1),
    "isgri_ngc2110.pha": (14, 350131.0, False, 0),
    "nicer_bkg_rate.pha.gz": (1501, 24990.1, False, 0),
    "nicer_fractional_rms.pha": (19, 0.638306, False, 0),
    "nicer_no_response_keys.pha": (1501, 1088980, True, 0),
    "pn_absolute_respfile.pha.gz": (4096, 4784, True, 0),
    "rosat_rass_rate_exp1.pha": (256, 0.000896151, False, 0),
    "rosat_xrb_rate_exp1.pha": (256, 0.00108999, False, 0),
    "simulated_fakeit.fak": (1024, 9968, True, 0),
}

#: name -> words of the sentence that refuses it as a spectrum
REFUSED = {
    "NGC2110_ursini_arf_osa10.fits.gz": "it is an effective area",
    "NGC2110_ursini_rmf_osa10.fits.gz": "it is a response matrix",
    "acis_685chan.arf": "it is an effective area",
    "acis_685chan.rmf.gz": "it is a response matrix",
    "acis_rmf_198rows.rmf.gz": "it is a response matrix",
    "arf_18_rows.arf": "it is an effective area",
    "eventlist_not_spectrum.fits.gz": "it is an event list",
    "heg_meg_bkg_updown_3c120_meg_p1.arf.gz": "it is an effective area",
    "image_not_spectrum.fits.gz": "FITS but not a spectrum",
    "nicer.arf.gz": "it is an effective area",
    "nicer_fractional_rms.rmf": "it is a response matrix",
    "pha2_3c120_meg_pm1.fits.gz": "holds 2 spectra",
    "pn_absolute_respfile.arf": "it is an effective area",
    "rosat_pspcc.rsp.gz": "it is a response matrix",
    "table_with_nan.fits": "FITS but not a spectrum",
}

#: name -> words of the sentence that a fit gets: links that lead nowhere
DANGLING = {
    "PN_named_but_is_MOS2.grp.gz": "MOS2_PWN.rmf",
    "acis_dangling_links.pha": "r1spec_s3.rmf",
    "acis_q1127_grp30.pha.gz": "q1127_src1.wrmf",
    "heg_meg_bkg_updown_3c120_meg_p1.pha.gz": "3c120_meg_1.rmf",
    "hrci_arlac_pha3.fits.gz": "hrcf24564_000N030_r0001_rmf3.fits",
    "nicer_fractional_rms.pha": "../../rms.rmf",
    "nicer_no_response_keys.pha": "source_bkg.pha",
    "pn_absolute_respfile.pha.gz": "/data/anto/xmm/rmf/epn_ff20_sdY9.rmf",
    "simulated_fakeit.fak": "ccdid7_default.rmf",
}

#: name -> (energies, channels, effective area is included)
MATRICES = {
    "NGC2110_ursini_rmf_osa10.fits.gz": (2466, 14, False),
    "acis_685chan.rmf.gz": (410, 685, False),
    "acis_rmf_198rows.rmf.gz": (198, 1024, False),
    "nicer_fractional_rms.rmf": (19, 19, False),
    "rosat_pspcc.rsp.gz": (710, 256, True),
}


def odd(shared_data, name):
    return shared_data / "odd_files" / name


def test_every_file_of_the_folder_is_written_down(shared_data):
    present = {p.name for p in (shared_data / "odd_files").iterdir()}
    assert present == set(LOADED) | set(REFUSED)


@pytest.mark.parametrize("name", LOADED)
def test_loads(shared_data, name):
    channels, counts, poisson, backgrounds = LOADED[name]
    spectrum = read_observation(odd(shared_data, name), strict=False).spectrum
    assert len(spectrum) == channels
    assert spectrum.counts.sum() == pytest.approx(counts, rel=1e-5)
    assert spectrum.poisson is poisson
    assert len(spectrum.backgrounds) == backgrounds
    assert (spectrum.error is not None) or poisson


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(shared_data, name):
    with pytest.raises(UserError, match=REFUSED[name]) as caught:
        read_observation(odd(shared_data, name))
    assert caught.value.remedy
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", DANGLING)
def test_dangling_links_are_named(shared_data, name):
    with pytest.raises(UserError, match="is not there") as caught:
        read_observation(odd(shared_data, name))
    assert DANGLING[name] in str(caught.value)


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_load(shared_data, name):
    energies, channels, includes_area = MATRICES[name]
    response = read_response(odd(shared_data, name), None if includes_area else "none")
    assert response.matrix.shape == (energies, channels)
    assert np.all(np.diff(response.edges) > 0)
    if not includes_area:
        assert response.total_area.max() == pytest.approx(1.0, abs=0.02)
        with pytest.raises(UserError, match="no effective area"):
            read_response(odd(shared_data, name))


def test_the_old_acis_pair_folds(shared_data):
    files = {"rmf": odd(shared_data, "acis_685chan.rmf.gz"), "arf": odd(shared_data, "acis_685chan.arf")}
    observation = read_observation(odd(shared_data, "acis_685chan_grp.pha.gz"), **files).group("file")
    spectrum = observation.spectrum
    assert observation.binned.counts.sum() == spectrum.counts[spectrum.quality == 0].sum() == 75
    assert observation.folded.matrix.shape[1] == len(observation.binned)


def test_an_area_of_another_grid_is_refused(shared_data):
    with pytest.raises(UserError, match="energy bins do not match"):
        read_response(odd(shared_data, "acis_685chan.rmf.gz"), odd(shared_data, "arf_18_rows.arf"))


def test_a_matrix_of_another_instrument_is_refused(shared_data):
    with pytest.raises(UserError, match="1024 channels and its response matrix acis_685chan"):
        read_observation(
            odd(shared_data, "acis_q1127_grp30.pha.gz"),
            rmf=odd(shared_data, "acis_685chan.rmf.gz"),
            arf="none",
            background="none",
        )


@pytest.mark.parametrize("name", ["rosat_xrb_rate_exp1.pha", "rosat_rass_rate_exp1.pha"])
def test_rosat_rates_fit_by_their_errors_in_the_groups_of_the_file(shared_data, name):
    """One channel of each group carries its rate and error."""
    observation = read_observation(odd(shared_data, name), rmf=odd(shared_data, "rosat_pspcc.rsp.gz")).group()
    assert str(observation.spectrum.grouping) == "file"
    observation.check_fittable("chi2")
    assert (observation.binned.error > 0).all()
    with pytest.raises(UserError, match="have no error"):
        observation.group("none").check_fittable("chi2")
    with pytest.raises(UserError, match="not whole numbers"):
        observation.check_fittable("cstat")


def test_isgri_reads_extensions_of_other_names_in_files_called_gz_that_are_not(shared_data):
    observation = read_observation(odd(shared_data, "isgri_ngc2110.pha"))
    assert observation.response.matrix.shape == (2466, 14)
    assert any("negative areas" in note for note in observation.notes)
    assert any("small negative elements" in note for note in observation.notes)
    binned = observation.binned
    assert not binned.poisson
    assert (binned.error > 0).all()


def test_rows_of_the_grating_file(shared_data):
    path = odd(shared_data, "pha2_3c120_meg_pm1.fits.gz")
    first, second = (read_observation(path, row=row).spectrum for row in (1, 2))
    single, _ = read_spectrum(odd(shared_data, "heg_meg_bkg_updown_3c120_meg_p1.pha.gz"))
    assert first.counts.sum() != second.counts.sum()
    assert np.array_equal(second.counts, single.counts)
    assert second.background.sum() == 969 + 652
    assert read_observation(f"{path}{{2}}").name.endswith("_2")


def test_dead_channels_of_the_grating_are_left_out(shared_data):
    background = odd(shared_data, "P0112880201R1S004BGSPEC1003.FTZ")
    spectrum = read_observation(odd(shared_data, "P0112880201R1S004SBSPEC1003.FTZ"), background=background).spectrum
    dead = spectrum.areascal == 0
    assert dead.any()
    assert not spectrum.noticed[dead].any()
    assert np.isfinite(spectrum.scaled_background).all()


CAMERAS = {"PNS": "epn_e3_ef20_sdY6_v19.0.rmf.gz", "M1S": "m1_5ev_substitute.rmf.gz", "M2S": "m2_5ev_substitute.rmf.gz"}


def field(shared_data):
    return sorted((shared_data / "field_4xmm").glob("*SRSPEC*"))


@pytest.mark.slow
def test_all_products_of_a_4xmm_field(shared_data):
    """With the matrix named: every spectrum folds; the counts of the pn are those of the folder's README."""
    files = field(shared_data)
    assert len(files) == 62
    for path in files:
        rmf = next(shared_data / "responses" / name for camera, name in CAMERAS.items() if camera in path.name)
        observation = read_observation(path, rmf=rmf).notice(0.3, 10.0).group()
        observation.check_fittable()
        assert len(observation.binned) > 20
        assert observation.folded.matrix.sum() > 0


def test_a_4xmm_product_names_the_options_for_its_canned_matrix(shared_data):
    path = field(shared_data)[0]
    with pytest.raises(UserError, match=r"m1_e13_im_pall_o\.rmf") as caught:
        read_observation(path, rmf_dir=shared_data / "responses")
    assert "--rmf FILE" in caught.value.remedy
    assert "--rmf-dir" in caught.value.remedy


def test_a_4xmm_product_finds_its_canned_matrix(shared_data):
    path = next(p for p in field(shared_data) if p.name.endswith("PNS003SRSPEC0007.FTZ"))
    response = read_observation(path, rmf_dir=shared_data / "responses").response
    assert response.rmf.endswith("epn_e3_ef20_sdY6_v19.0.rmf.gz")
