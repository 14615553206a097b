"""`deepspec models`."""

from __future__ import annotations

import json

import click

from deepspec_cli.options import show


@click.command(short_help="List the components: parameters, units, defaults, limits.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--kind", type=click.Choice(["additive", "multiplicative", "convolution"]), help="Only components of this kind."
)
@click.option("--xspec", is_flag=True, help="The models of XSPEC's library (pip install deepspec[xspec]).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(names, kind, xspec, as_json):
    """List the components of models; with NAME the formula, its source, and every parameter of these.

    \b
    deepspec models
    deepspec models tbabs diskbb
    deepspec models --kind convolution
    deepspec models --xspec --json
    """
    from deepspec.catalogue import components
    from deepspec.report import component_details, component_table

    found = components(names, kind, xspec)
    if as_json:
        click.echo(json.dumps({"components": found}, indent=2, allow_nan=False))
        return
    if not names:
        show(component_table(found))
        return
    for number, item in enumerate(found):
        if number:
            click.echo()
        show(component_details(item))
