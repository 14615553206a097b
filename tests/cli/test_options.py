"""What commands share: options that were typed, progress on a terminal only, colours on a terminal only."""

from __future__ import annotations

import io
import sys

import pytest
from rich.text import Text

from deepspec_cli.options import given, progress_bar, show


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_only_what_was_typed_counts():
    assert given({"a": None, "b": (), "c": 0, "d": False, "e": ("x",)}) == {"c": 0, "d": False, "e": ("x",)}


def test_progress_shows_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(quiet=False) as tell:
        tell("goodness", 3, 10)
        tell("goodness", 10, 10)
    assert "goodness" in sys.stderr.getvalue()
    assert "10/10" in sys.stderr.getvalue()


@pytest.mark.parametrize(("stream", "quiet"), [(Terminal, True), (io.StringIO, False)])
def test_no_progress_in_a_pipe_or_when_quiet(monkeypatch, stream, quiet):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(quiet) as tell:
        assert tell is None
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_colours_on_a_terminal_only(monkeypatch, terminal):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    show(Text("words", style="bold red"))
    assert ("\x1b[" in sys.stdout.getvalue()) == terminal
    assert "words" in sys.stdout.getvalue()
