"""The `deepspec` command: a table of commands, each imported when it is called, and how a run ends."""

from __future__ import annotations

import shlex
import sys

import click

from deepspec import __version__
from deepspec.errors import UserError
from deepspec.registry import Registry

COMMANDS = Registry(
    "command",
    {
        "fit": "deepspec_cli.fit:command",
        "models": "deepspec_cli.models:command",
        "info": "deepspec_cli.info:command",
        "fake": "deepspec_cli.fake:command",
        "train": "deepspec_cli.train:command",
        "dataset": "deepspec_cli.dataset:command",
        "tables": "deepspec_cli.tables:command",
        "weights": "deepspec_cli.weights:command",
        "plot": "deepspec_cli.plot:command",
    },
)
"""Command -> module; the modules import nothing heavy before they run."""


class Commands(click.Group):
    """Loads commands from `COMMANDS`; turns a user's mistake into one line on stderr and exit status 2."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        return COMMANDS[name] if name in COMMANDS else None

    def resolve_command(self, ctx, args):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            COMMANDS[args[0]]  # says which names are near
        return super().resolve_command(ctx, args)

    def main(self, args=None, **options):
        typed = sys.argv[1:] if args is None else list(args)
        options.setdefault("obj", shlex.join(["deepspec", *typed]))
        return super().main(args, **options)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"deepspec: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            name = error.ctx.command_path if error.ctx else "deepspec"
            message = " ".join(error.format_message().split()).rstrip(".")
            click.echo(f"deepspec: {message}; `{name} --help` shows what can be given.", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("deepspec: interrupted; nothing was left half-written.", err=True)
            ctx.exit(130)


@click.group(
    "deepspec", cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="deepspec")
@click.pass_context
def main(ctx):
    """Fit X-ray spectra: from a PHA file to parameters, errors, fluxes and plots.

    \b
    deepspec info obs.pha
    deepspec fit obs.pha --model "tbabs*powerlaw" --notice 0.5:7 --out fit1
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
