"""`deepspec train`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import click

from deepspec.errors import UserError
from deepspec_cli.options import several

if TYPE_CHECKING:
    from deepspec.training.log import Progress


REAL_SHARE = 0.25
"""Share of real spectra in a batch when a catalogue is given and no share."""


@click.command(short_help="Train the learned component, or a stage of it.")
@click.argument("config", required=False, type=click.Path(), metavar="[CONFIG.toml]")
@click.option(
    "--preset", metavar="NAME", help="A configuration of the package, in place of CONFIG.toml; default unless given."
)
@click.option("--out", "-o", type=click.Path(), metavar="DIR", help="Folder for weights, states and logs.")
@click.option(
    "--stage",
    type=click.Choice(["all", "decoder", "prior", "encoder", "joint"]),
    default="all",
    show_default=True,
    help="One stage alone, on top of what the stages before it left in DIR; all are those that the configuration lists.",
)
@click.option("--resume", is_flag=True, help="Go on from the state in DIR; complete stages are passed over.")
@several("--set", "SECTION.KEY=VALUE", "A setting in place of the configuration's, as stage.decoder.batch=128.")
@click.option("--steps", type=int, metavar="N", help="Steps of each stage that is run; all schedules follow.")
@click.option("--rate", type=float, metavar="R", help="Highest learning rate of each stage that is run.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda or cuda:N; auto takes a GPU if there is one.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the networks and all data.")
@click.option("--threads", type=int, metavar="N", help="Processor cores to use.", show_default="all")
@click.option(
    "--data",
    type=click.Path(),
    metavar="FILE",
    help="Catalogue of real spectra (`deepspec dataset build`) for the stages encoder and joint; a quarter of each batch unless stage.NAME.real says otherwise.",
)
@click.option(
    "--responses",
    type=click.Path(),
    metavar="DIR",
    help="Folder of ARF and RMF files to simulate besides the cameras of the package.",
)
@click.option("--show-config", is_flag=True, help="Print the whole configuration as TOML, and train nothing.")
@click.option("--list-presets", is_flag=True, help="List the configurations of the package.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and mistakes.")
def command(config, preset, out, stage, resume, device, seed, threads, show_config, list_presets, quiet, **changes):
    """Train the learned component: the decoder, then the prior, then the encoder.

    DIR gets weights.h5, which `--model "tbabs*deepspec{DIR/weights.h5}"` and `deepspec weights` take, and per stage its
    weights, its log (CSV) and the state from which --resume goes on. Exit status: 0, 2 for a mistake in what was asked or a loss
    that is no number any more, 130 when stopped by Ctrl-C or SIGTERM (the state is written first).

    \b
    deepspec train --preset tiny -o run1
    deepspec train --preset tiny -o run1 --resume
    deepspec train mine.toml -o run2 --stage decoder --set stage.decoder.batch=512 --device cuda
    torchrun --no-python --nproc-per-node 4 deepspec train -o run3
    """
    if list_presets:
        from deepspec.training.config import presets

        click.echo("\n".join(f"{name:10s} {text}" for name, text in presets().items()))
        return
    wanted = _configuration(config, preset, stage, **changes)
    if show_config:
        click.echo(wanted.as_toml(), nl=False)
        return
    if out is None:
        raise UserError("no folder is given for weights and logs", "--out", "add -o DIR")
    from deepspec.training.recipe import train

    with showing(quiet) as report, warnings_as_lines():
        written = train(wanted, out, stage, resume, device, seed, threads, report)
    if not quiet:
        click.echo(f"written: {written}")


def _configuration(path, preset, stage, steps, rate, data, responses, **more):
    """The configuration of the file or preset, with what was typed in its place."""
    from deepspec.training.config import load_config

    config = load_config(path, preset, more["set"])
    run = config.stages if stage == "all" else [stage]
    for name in run:
        for key, value in (("steps", steps), ("rate", rate)):
            if value is not None:
                config = config.with_changes({"stage": {name: {key: value}}}, f"--{key}")
    for name in {"encoder", "joint"} & set(run) if data is not None else ():
        share = config.stage[name].real or REAL_SHARE
        config = config.with_changes({"stage": {name: {"catalogue": data, "real": share}}}, "--data")
    if responses is not None:
        config = config.with_changes({"cameras": {"folder": responses}}, "--responses")
    return config


@contextmanager
def showing(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on a terminal; in a pipe one line for each validation."""
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Bar(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True)) as bar:
            tasks: dict = {}

            def tell(now: Progress) -> None:
                if now.stage not in tasks:
                    tasks[now.stage] = bar.add_task(now.stage, total=now.steps, said="")
                said = f"loss {now.loss:.4g}, {now.speed:,.0f} spectra/s{_first(now)}"
                bar.update(tasks[now.stage], completed=now.step, said=said)

            yield tell


def line(now: Progress) -> None:
    """One line on stderr for each validation, with its first figures; the log has them all."""
    if now.validated:
        figures = "".join(f", {name} {value:.4g}" for name, value in islice(now.validation.items(), 4))
        left = f", {now.seconds_left / 60:.0f} min left" if now.step < now.steps else ""
        text = f"{now.stage} {now.step}/{now.steps}: loss {now.loss:.4g}, {now.speed:,.0f} spectra/s{figures}{left}"
        click.echo(text, err=True)


def _first(now: Progress) -> str:
    return next((f", {name} {value:.4g}" for name, value in now.validation.items()), "")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """What was decided for the user is said at once, in a line."""
    from deepspec.errors import DeepspecWarning

    usual = warnings.showwarning

    def show(message, category, *more) -> None:
        if issubclass(category, DeepspecWarning):
            click.echo(f"deepspec: warning: {message}", err=True)
        else:
            usual(message, category, *more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeepspecWarning)
        warnings.showwarning = show
        yield
