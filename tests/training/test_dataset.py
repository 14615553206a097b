"""The file of a catalogue: what is read is what was written, in an order that is random, complete and repeatable."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.training.dataset import ENCODER_KEYS, Dataset, as_tensors, describe
from deepspec.training.dataset_file import Writer, open_dataset
from tests.training.catalogue_files import random_matrices, random_rows

COUNT = 1500


@pytest.fixture(scope="module")
def rows():
    return random_rows(COUNT, seed=4)


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("catalogue") / "all.h5"
    writer = Writer(path, {"settings": {"min_counts": 1, "band": [0.3, 10.0]}})
    for first in range(0, COUNT, 700):
        writer.append({name: values[first : first + 700] for name, values in rows.items()})
    writer.close(random_matrices(), [("bad", "x/bad", "few counts", "3")])
    return path


@pytest.fixture
def data(path):
    data = Dataset(path, validation=0.2, pool=2)
    yield data
    data.close()


def test_batch_returns_the_rows_asked_for(data, rows):
    places = [700, 3, 1499, 3, 255, 256]
    batch = data.batch(places)
    np.testing.assert_array_equal(batch["counts"], rows["counts"][places])
    np.testing.assert_array_equal(batch["rmf"], rows["rmf"][places])
    np.testing.assert_allclose(batch["exposure"][:, 0], rows["exposure"][places], rtol=1e-6)
    np.testing.assert_array_equal(batch["index"], places)
    assert batch["area"].max(axis=1) == pytest.approx(1.0)
    assert len(data.batch([])["counts"]) == 0
    with pytest.raises(UserError, match="holds 1500 spectra, no number 1500"):
        data.batch([1500])


def test_encoder_takes_a_batch(data):
    from deepspec.learned.encoder import EncoderInput

    batch = as_tensors(data.batch([1, 2]))
    seen = EncoderInput(**{key: batch[key] for key in ENCODER_KEYS}).masked()
    assert torch.isfinite(seen.area.log()).all()


def test_one_pass_sees_every_training_spectrum_once(data):
    places = data.places("training")
    assert 0.7 * COUNT < len(places) < 0.9 * COUNT
    assert len(places) == data.count("training")
    seen = np.concatenate([data.at(step, 50, seed=7)["index"] for step in range(len(places) // 50)])
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(places)
    # The step after the last whole one crosses into the next pass, and completes this one
    rest = len(places) - len(seen)
    last = data.at(len(places) // 50, 50, seed=7)["index"]
    assert set(seen) | set(last[:rest]) == set(places)
    assert np.abs(np.corrcoef(np.arange(len(seen)), seen)[0, 1]) < 0.5


def test_a_step_is_a_pure_function(path):
    first, second = Dataset(path, 0.2, pool=2), Dataset(path, 0.2, pool=2)
    whole = [first.at(step, 64, seed=1)["index"] for step in range(30)]
    for step in (29, 3, 17, 3):
        np.testing.assert_array_equal(second.at(step, 64, seed=1)["index"], whole[step])
    assert not np.array_equal(second.at(3, 64, seed=2)["index"], whole[3])
    streamed = first.batches(seed=1, batch=64, first=5)
    np.testing.assert_array_equal(next(streamed)["index"], whole[5])


def test_processes_share_the_steps(data):
    together = data.at(2, 60, seed=5)["index"]
    apart = [data.at(2, 30, seed=5, rank=rank, world=2)["index"] for rank in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(apart), together)


def test_validation_is_kept_apart(data):
    validation = set(data.places("validation"))
    assert validation.isdisjoint(data.places("training"))
    assert len(validation) + data.count("training") == COUNT
    assert set(data.at(0, 100, 0, "validation")["index"]) <= validation
    with pytest.raises(UserError, match="no spectrum for validation"):
        Dataset(data.path, validation=0.0).at(0, 1, 0, "validation")
    with pytest.raises(UserError, match="no part 'test'"):
        data.at(0, 1, 0, "test")


def test_fold_groups_by_matrix_and_passes_gradients(data, rows):
    places = np.array([5, 900, 6, 7, 1400])
    shape = torch.rand(2, 5, 600, dtype=torch.float64, requires_grad=True)
    folded = data.fold(shape, places)
    for k, place in enumerate(places):
        matrix = data.matrices[rows["rmf"][place]].astype(float)
        expected = (shape[:, k].detach().numpy() * rows["arf"][place] * np.float32(rows["exposure"][place])) @ matrix
        np.testing.assert_allclose(folded[:, k].detach().numpy(), expected, rtol=1e-6)
    (gradient,) = torch.autograd.grad(folded.sum(), shape)
    assert (gradient > 0).all()
    torch.testing.assert_close(data.fold(shape, data.batch(places)), folded)


def test_a_copy_for_a_worker_opens_the_file_itself(data):
    data.at(0, 10, 0)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.at(0, 10, 0)["counts"], data.at(0, 10, 0)["counts"])


def test_description(data):
    facts = describe(data)
    assert facts.spectra == COUNT
    assert sum(facts.matrices.values()) == COUNT
    assert facts.rejected == {"few counts": 1}
    assert facts.validation == data.count("validation")


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_cut_file_is_refused_wherever_it_is_cut(path, tmp_path):
    content = path.read_bytes()
    for share in (0.0, 0.001, 0.3, 0.9, 0.9999):
        cut = tmp_path / "cut.h5"
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"cut.h5: (is an empty file|is not an HDF5 file|is damaged or incomplete)"):
            Dataset(cut)


def test_a_changed_byte_is_found(path, tmp_path):
    with h5py.File(path) as file:
        where = file["spectra/counts"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[where + 100] ^= 0xFF
    bad = tmp_path / "bad.h5"
    bad.write_bytes(content)
    data = Dataset(bad)
    assert len(data.batch([0])["counts"]) == 1
    with pytest.raises(UserError, match=r"bad.h5: is damaged or incomplete .*make it again"):
        data.batch([600])


def change(path, copy, edit):
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        edit(file)
    return copy


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda f: f.attrs.__setitem__("format", "x"), "is HDF5, but not a catalogue of spectra"),
        (lambda f: f.attrs.__setitem__("version", 99), "was written by a newer deepspec"),
        (lambda f: f.__delitem__("spectra/arf"), "lacks the column arf"),
        (lambda f: f.__delitem__("edges"), "is damaged or incomplete"),
        (lambda f: f["edges"].__setitem__(3, 7.0), "was made for other energy grids"),
        (lambda f: f.attrs.__delitem__("complete"), "was never finished"),
        (lambda f: f["spectra/ratio"].resize(3, axis=0), "columns of different lengths"),
    ],
)
def test_foreign_files_are_refused(path, tmp_path, edit, words):
    with pytest.raises(UserError, match=words):
        Dataset(change(path, tmp_path / "other.h5", edit))


def test_what_is_no_catalogue_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no data")
    (tmp_path / "begun.h5.parts").mkdir()
    for name, words in {
        "text.h5": "is not an HDF5 file",
        "nowhere.h5": "no such file; make one with",
        ".": "is a folder",
        "begun.h5": "is not finished; .*--resume",
    }.items():
        with pytest.raises(UserError, match=words):
            open_dataset(tmp_path / name)
    with pytest.raises(UserError, match="cannot be kept for validation"):
        Dataset(tmp_path / "text.h5", validation=1.0)
