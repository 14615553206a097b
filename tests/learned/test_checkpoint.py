"""Weights files: what was written is read, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.checkpoint import Section, Weights, content_hash, read_weights, write_weights
from deepspec.learned.modules import checked, load_decoder, load_flow, make_weights
from deepspec.learned.oracle import OracleConfig, build_oracle
from deepspec.learned.tabulated import Tabulated
from tests.learned.toy_weights import toy_modules, toy_weights


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return toy_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def copy(path, tmp_path):
    """A copy that may be spoilt."""
    other = tmp_path / "copy.h5"
    other.write_bytes(path.read_bytes())
    return other


def sealed(path) -> None:
    """Record the hash of what is in the file now, as one who made the file on purpose would."""
    with h5py.File(path, "r+") as file:
        sections = {
            name: Section(
                json.loads(file[name]["config"].asstr()[()]), {k: v[()] for k, v in file[name]["arrays"].items()}
            )
            for name in ("decoder", "flow")
        }
        plain = read_weights_unchecked(file)
        file.attrs["sha256"] = content_hash(Weights(**sections, card=plain["card"], check=plain["check"]))


def read_weights_unchecked(file):
    from deepspec.learned.checkpoint import Check

    constants = json.loads(file["check/constants"].asstr()[()])
    return {
        "card": json.loads(file["card"].asstr()[()]),
        "check": Check(constants, file["check/places"][()], file["check/shapes"][()]),
    }


def test_round_trip_is_exact(tmp_path):
    decoder, flow = toy_modules(latent=4)
    oracle = build_oracle(OracleConfig(latent=4, widths=(8,)))
    card = {"summary": "é", "figures": {"a": np.float64(1.5), "b": [1, None]}, "band": (0.5, 7.0)}
    written = write_weights(tmp_path / "w.h5", make_weights(decoder, flow, oracle, card=card))
    found = read_weights(tmp_path / "w.h5")
    assert found.sha256 == written.sha256
    assert found.encoder is None
    assert found.band == (0.5, 7.0)
    assert found.card == {"summary": "é", "figures": {"a": 1.5, "b": [1, None]}, "band": [0.5, 7.0]}
    for module, section in ((decoder, found.decoder), (flow, found.flow), (oracle, found.oracle)):
        state = module.state_dict()
        assert set(state) == set(section.arrays)
        for name, value in state.items():
            assert section.arrays[name].dtype == np.float32
            assert np.array_equal(section.arrays[name], value.numpy())
    again = write_weights(tmp_path / "again.h5", found)
    assert again.sha256 == found.sha256


def test_reloaded_modules_give_the_same_spectra(path):
    decoder, flow = toy_modules()
    u = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = decoder(flow(u))
        loaded = load_decoder(read_weights(path))
        assert torch.allclose(loaded(u), before, rtol=1e-4, atol=0.0)
        assert torch.allclose(load_flow(read_weights(path))(u), flow(u), rtol=0, atol=0)


def test_reading_needs_no_torch(path):
    code = (
        "import sys\nfrom deepspec.learned.tabulated import tabulated_at\nimport numpy as np\n"
        f"flux = tabulated_at({str(path)!r}).flux(np.geomspace(0.3, 10, 100), np.zeros(3))\n"
        "assert flux.sum() > 0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cut_file_is_refused(copy):
    whole = copy.read_bytes()
    for size in (0, 100, len(whole) // 3, len(whole) - 1):
        copy.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"copy\.h5: .*(damaged|not a file)") as caught:
            read_weights(copy)
        assert str(caught.value).count("\n") == 0


def test_a_flipped_weight_is_noticed(copy):
    with h5py.File(copy, "r+") as file:
        file["decoder/arrays/branch.net.0.bias"][0] += 1e-3
    with pytest.raises(UserError, match="changed or damaged"):
        read_weights(copy)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(UserError, match="no readable file of weights"):
        read_weights(tmp_path / "x.h5")


def test_a_foreign_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(UserError, match="not a file of deepspec weights"):
        read_weights(tmp_path / "x.h5")


def test_a_newer_file_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file.attrs["format"] = "deepspec weights 2"
    with pytest.raises(UserError, match="newer deepspec; update deepspec"):
        read_weights(copy)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file of weights"):
        read_weights(tmp_path / "none.h5")


def test_another_grid_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file["grid/edges"][0] = 0.1
    with pytest.raises(UserError, match="another energy grid"):
        read_weights(copy)


@pytest.mark.parametrize(
    "change", [{"templates": 9}, {"latent": 4}, {"branch": [16, 17]}, {"trunk_width": 17}, {"moving": 1}]
)
def test_another_architecture_is_refused(path, change):
    weights = read_weights(path)
    other = Weights(
        Section({**weights.decoder.config, **change}, weights.decoder.arrays), weights.flow, check=weights.check
    )
    for load in (load_decoder, Tabulated):
        with pytest.raises(UserError, match=r"another architecture|coordinates and its decoder"):
            load(other)


def test_an_unknown_setting_is_refused(path):
    weights = read_weights(path)
    other = Weights(Section({**weights.decoder.config, "wings": 2}, weights.decoder.arrays), weights.flow)
    with pytest.raises(UserError, match="unknown setting 'wings'"):
        load_decoder(other)


def test_another_frequency_is_noticed(path):
    """omega_0 is no weight: with another one the spectra are plausible and wrong."""
    weights = read_weights(path)
    config = {**weights.decoder.config, "frequency": 6.0}
    other = Weights(Section(config, weights.decoder.arrays), weights.flow, check=weights.check)
    for load in (load_decoder, Tabulated):
        with pytest.raises(UserError, match="other spectra than when they were written"):
            load(other)


def test_another_constant_of_the_code_is_noticed(path, monkeypatch):
    monkeypatch.setattr("deepspec.learned.flow.TAIL", 4.0)
    with pytest.raises(UserError, match=r"trained with tail = 5\.0, and this deepspec has 4\.0"):
        load_decoder(read_weights(path))


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    decoder, flow = toy_modules()
    with torch.no_grad():
        decoder.branch.net[0].bias[0] = torch.nan
    from deepspec.learned.modules import section

    with pytest.raises(UserError, match=r"decoder/branch\.net\.0\.bias are not finite"):
        write_weights(tmp_path / "w.h5", Weights(section(decoder), section(flow)))
    assert not list(tmp_path.iterdir())


def test_a_sealed_file_with_other_spectra_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file["decoder/arrays/branch.net.0.bias"][0] += 0.1
    sealed(copy)
    weights = read_weights(copy)
    for load in (load_decoder, Tabulated):
        with pytest.raises(UserError, match="other spectra"):
            load(weights)
    assert load_decoder(checked(weights)) is not None
