"""`deepspec weights`: the files that the component deepspec is read from."""

from __future__ import annotations

import json

import click

from deepspec_cli.options import show


@click.group(name="weights")
def command():
    """List and describe the weights of the learned component.

    A model names them in braces: deepspec{NAME} or deepspec{FILE}; deepspec alone means the default that ships. Yours are kept
    in the folder DEEPSPEC_WEIGHTS, or in your user data folder.
    """


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def list_weights(as_json):
    """List the weights that have a name: what ships, and your own folder."""
    from deepspec.learned import describe
    from deepspec.learned.finding import user_folder

    found = describe.listed()
    if as_json:
        click.echo(json.dumps({"weights": found, "folder": str(user_folder())}, indent=2, allow_nan=False))
        return
    if found:
        from deepspec.report import weights_table

        show(weights_table(found))
    else:
        click.echo("There are no weights yet; `deepspec train` makes some.")
    click.echo(f"your weights: {user_folder()}")


@command.command()
@click.argument("name", default="default", metavar="[NAME|FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def info(name, as_json):
    """Show the card of weights: what they are, how they were made, how well they do, their size and hash. An example:

    deepspec weights info run3/weights.h5 --json
    """
    from deepspec.learned import describe

    found = describe.described(name)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    from deepspec.report import weights_details

    show(weights_details(found))
