"""Damaged files: whatever bytes are flipped or cut, an observation or one sentence comes of it, and soon."""

from __future__ import annotations

import gzip
import json
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.io.summary import summarize
from small_files import write_small

SECONDS = 20
NAMES = ("src.pha", "src_bkg.pha", "src.arf", "src.rmf")


class Files(dict):
    """Contents by name, with a short repr for hypothesis."""

    def __repr__(self):
        return f"Files({', '.join(self)})"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Bytes of the small observation's files by name."""
    folder = tmp_path_factory.mktemp("sound")
    write_small(folder)
    return Files({name: (folder / name).read_bytes() for name in NAMES})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def outcome(folder, files):
    """Describe, read, group and fold; "read" or "refused". Anything else fails the test, a hang after `SECONDS`."""
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def too_long(*_):
        raise TimeoutError(f"not done after {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        json.dumps(summarize(folder / "src.pha"), allow_nan=False)
        observation = read_observation(folder / "src.pha").group("auto")
        assert np.isfinite(observation.binned.counts).all()
        assert np.isfinite(observation.folded.matrix).all()
        return "read"
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")
        assert "Traceback" not in message
        return "refused"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_fuzz_starts_from_files_that_read(folder, originals):
    assert outcome(folder, originals) == "read"


@pytest.mark.slow
@settings(max_examples=200)
@given(name=st.sampled_from(NAMES), at=st.floats(0, 1), number=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_flipped_bytes_anywhere(folder, originals, name, at, number, seed):
    content = bytearray(originals[name])
    rng = np.random.default_rng(seed)
    start = int(at * (len(content) - 1))
    for place in np.minimum(start + rng.integers(0, 200, number), len(content) - 1):
        content[place] = rng.integers(0, 256)
    outcome(folder, {**originals, name: bytes(content)})


@pytest.mark.slow
@settings(max_examples=200)
@given(name=st.sampled_from(NAMES), card=st.integers(0, 400), seed=st.integers(0, 10**6))
def test_changed_header_cards(folder, originals, name, card, seed):
    """Printable characters in the value of one card of a table's header."""
    content = bytearray(originals[name])
    cards = [i for i in range(2880, len(content) - 80, 80) if content[i + 8 : i + 10] == b"= "]
    start = cards[card % len(cards)]
    rng = np.random.default_rng(seed)
    first = start + 10 + int(rng.integers(0, 20))
    for place in range(first, first + int(rng.integers(1, 4))):
        content[place] = rng.choice(np.frombuffer(b"0123456789-+.'E TFX", dtype=np.uint8))
    outcome(folder, {**originals, name: bytes(content)})


@settings(max_examples=40)
@given(name=st.sampled_from(NAMES), share=st.floats(0, 1), zipped=st.booleans())
def test_cut_files(folder, originals, name, share, zipped):
    content = gzip.compress(originals[name], mtime=0) if zipped else originals[name]
    # The last 2880 bytes of a plain file hold some data and then padding, which nobody misses
    content = content[: int(share * (len(content) - (1 if zipped else 2880)))]
    assert outcome(folder, {**originals, name: content}) == "refused"


@settings(max_examples=25)
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=4000), start=st.booleans())
def test_noise_in_place_of_a_file(folder, originals, name, content, start):
    content = originals[name][:2880] + content if start else content
    assert outcome(folder, {**originals, name: content}) == "refused"
