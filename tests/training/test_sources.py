"""The stream of simulated sources: a function of (seed, rank, step), endless, drawn ahead."""

from __future__ import annotations

import pytest
import torch

from deepspec.errors import UserError
from deepspec.training.sources import CLASS_NAMES, SourceStream, held_out

SMALL = {"block": 64, "blocks": 3, "reuse": 2}


@pytest.fixture
def stream():
    made = []

    def make(seed=1, batch=32, **options) -> SourceStream:
        made.append(SourceStream(seed, batch, **{**SMALL, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_what_the_contract_says(stream):
    shape, label = stream().batch(0)
    assert shape.shape == (32, 600)
    assert shape.dtype == torch.float32
    assert label.shape == (32,)
    assert label.dtype == torch.int64
    assert bool(((label >= 0) & (label < len(CLASS_NAMES))).all())


def test_a_fresh_stream_enters_anywhere(stream):
    """What a killed training needs: step 1000 of a new object is step 1000 of the one that went there."""
    walked = stream()
    seen = {step: walked.batch(step) for step in range(990, 1005)}
    fresh = stream()
    assert equal(fresh.batch(1000), seen[1000])
    assert equal(fresh.batch(1004), seen[1004])
    assert equal(fresh.batch(991), seen[991]), "backwards, too"
    assert equal(fresh.batch(991), seen[991]), "and again"


def test_walking_there_changes_nothing(stream):
    walked = stream()
    for step in range(40):
        last = walked.batch(step)
    assert equal(stream().batch(39), last)


def test_a_batch_is_the_callers_own(stream):
    source = stream()
    shape, label = source.batch(5)
    shape.zero_(), label.zero_()
    assert equal(source.batch(5), stream().batch(5))
    assert float(source.batch(5)[0].min()) > 0


@pytest.mark.parametrize("change", [{"seed": 2}, {"rank": 1, "world": 2}])
def test_seeds_and_processes_have_sources_of_their_own(stream, change):
    one, other = stream(), stream(**change)
    mine = {tuple(row) for step in (0, 30) for row in one.batch(step)[0][:, ::60].tolist()}
    theirs = {tuple(row) for step in (0, 30) for row in other.batch(step)[0][:, ::60].tolist()}
    assert not mine & theirs


def test_the_pool_is_renewed_and_never_repeats(stream):
    """Sources of a step far away are all new; a source is seen `reuse` times on average."""
    source = stream()
    near = {tuple(row) for step in range(4) for row in source.batch(step)[0][:, ::60].tolist()}
    later = {tuple(row) for step in range(40, 44) for row in source.batch(step)[0][:, ::60].tolist()}
    assert len(near) > 32
    assert not near & later
    steps = 400
    assert (source.newest(steps) - source.newest(0)) * 64 == steps * 32 / 2


def test_the_next_block_is_drawn_ahead(stream):
    source = stream()
    source.batch(0)
    index, future = source._ahead
    assert index == source.newest(0) + 1
    ahead = future.result(timeout=60)
    first = next(step for step in range(100) if source.newest(step) == index)
    source.batch(first)
    place = index % 3 * 64
    assert torch.equal(source._shape[place : place + 64], ahead.shape)


def test_a_closed_stream_goes_on(stream):
    source = stream()
    before = source.batch(7)
    source.close()
    assert equal(source.batch(7), before)


def test_an_error_of_the_thread_is_not_lost(stream, monkeypatch):
    source = stream()
    monkeypatch.setattr(source, "_block", lambda index: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        source.batch(0)


def test_shares_are_followed(stream):
    _, label = stream(shares={"star": 1.0}).batch(3)
    assert set(label.tolist()) == {CLASS_NAMES.index("star")}


def test_held_out_sources_are_fixed_and_apart(stream):
    one, again, other = held_out(50, seed=1), held_out(50, seed=1), held_out(50, seed=2)
    assert torch.equal(one.shape, again.shape)
    assert torch.equal(one.label, again.label)
    assert not torch.equal(one.shape, other.shape)
    # the same numbers as seeds, block sizes and shares of a stream give other sources
    trained = stream(seed=1, block=50, blocks=1, batch=500).batch(0)[0]
    held = {tuple(row) for row in one.shape[:, ::60].tolist()}
    assert not held & {tuple(row) for row in trained[:, ::60].tolist()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"block": 0},
        {"blocks": 0},
        {"reuse": 0},
        {"seed": -1},
        {"rank": 2, "world": 2},
        {"shares": {"sta": 1}},
    ],
)
def test_impossible_settings_are_refused(wrong):
    options = {"seed": 1, "batch": 8, **SMALL, **wrong}
    with pytest.raises(UserError):
        SourceStream(**options)
