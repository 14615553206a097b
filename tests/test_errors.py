"""One sentence on one line: source, problem, remedy."""

import pickle

from deepspec.errors import UserError


def test_the_sentence():
    assert str(UserError("is not there")) == "is not there."
    assert str(UserError("is not there.", "obs.pha")) == "obs.pha: is not there."
    assert str(UserError("two\nlines", "obs.pha", "give\nanother.")) == "obs.pha: two lines; give another."
    assert str(UserError("what", remedy="did you mean this?")) == "what; did you mean this?"
    assert UserError("x").exit_code == 2


def test_it_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(UserError("a", "b", "c")))
    assert (error.problem, error.source, error.remedy) == ("a", "b", "c")
