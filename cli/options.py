"""Options that several commands share, and how a run shows progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


def several(name: str, metavar: str, text: str, **more) -> Callable:
    """An option that may be given more than once."""
    return click.option(name, multiple=True, metavar=metavar, help=text, **more)


def responses(function: Callable) -> Callable:
    """--arf --rmf --bkg --rmf-dir, in place of what the header names."""
    for option in (
        click.option(
            "--rmf-dir",
            type=click.Path(),
            metavar="DIR",
            help="Folder of canned matrices, looked up by the name in the header (also the variable DEEPSPEC_RMF_DIR).",
        ),
        several(
            "--bkg",
            "FILE",
            "Background in place of BACKFILE; `none` for none. One per spectrum in order, or N=FILE; one spectrum may have several.",
        ),
        several(
            "--rmf",
            "FILE",
            "Response matrix in place of RESPFILE; `none` for none. One per spectrum in order, or N=FILE.",
        ),
        several(
            "--arf",
            "FILE",
            "Effective area in place of ANCRFILE; `none` for none. One per spectrum in order, or N=FILE.",
        ),
    ):
        function = option(function)
    return function


def parameters(function: Callable) -> Callable:
    """--set --fix --thaw --limits --link --prior."""
    for option in (
        several(
            "--prior",
            "PAR=PRIOR",
            "normal(m,s), lognormal(m,s), log10normal(m,s), uniform(a,b) or loguniform(a,b); the fit then finds the maximum of the posterior.",
        ),
        several("--link", '"A = EXPR"', 'Tie a parameter to others: "powerlaw_2.PhoIndex = powerlaw.PhoIndex + 0.5".'),
        several("--limits", "PAR=LO:HI", "Limits in place of the usual ones."),
        several("--thaw", "PAR", "Free a parameter that is frozen by default (a redshift, an abundance)."),
        several("--fix", "PAR[=VALUE]", "Hold a parameter at its value, or at VALUE."),
        several(
            "--set",
            "PAR=VALUE",
            "Starting value. PAR is component.name (powerlaw.PhoIndex), or the name alone where only one fits.",
        ),
    ):
        function = option(function)
    return function


def given(choices: dict) -> dict:
    """The options that were typed: no None, no empty tuple."""
    return {name: value for name, value in choices.items() if value is not None and value != ()}


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A function that shows (what, done, total) on a terminal; None in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def show(renderable) -> None:
    """Print for the reader: colours on a terminal, plain text without control codes in a pipe."""
    from deepspec.report import as_text, console

    if sys.stdout.isatty():
        console().print(renderable)
    else:
        click.echo(as_text(renderable))
