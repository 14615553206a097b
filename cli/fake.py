"""`deepspec fake`."""

from __future__ import annotations

import json

import click

from deepspec_cli import options
from deepspec_cli.options import several, show


@click.command(short_help="Simulate a spectrum in the likeness of an observation.")
@click.option("--model", "-m", required=True, metavar="EXPR", help='Such as "tbabs*powerlaw".')
@several("--set", "PAR=VALUE", "Value of a parameter. PAR is component.name, or the name alone where only one fits.")
@several("--link", '"A = EXPR"', "Tie a parameter to others.")
@click.option(
    "--flux", metavar="LO:HI=VALUE", help="Scale all norms to this observed flux [erg cm^-2 s^-1] in LO:HI [keV]."
)
@click.option(
    "--abund", default="wilm", show_default=True, metavar="TABLE", help="Solar abundances of absorbers and plasmas."
)
@click.option(
    "--like",
    type=click.Path(),
    metavar="FILE",
    help="Observation to imitate: response, background, exposure, scale factors. Without it --rmf and --exposure.",
)
@click.option("--exposure", type=float, metavar="S", help="Seconds; that of --like by default.")
@click.option(
    "--background",
    type=click.Choice(["like", "none"]),
    default="like",
    show_default=True,
    help="Draw the background of --like too, or leave it out.",
)
@click.option("--arf", type=click.Path(), metavar="FILE", help="Effective area in place of ANCRFILE; `none` for none.")
@click.option("--rmf", type=click.Path(), metavar="FILE", help="Response matrix in place of RESPFILE.")
@several("--bkg", "FILE", "Background in place of BACKFILE; `none` for none.")
@click.option("--rmf-dir", type=click.Path(), metavar="DIR", help="Folder of canned matrices.")
@click.option("--row", type=int, metavar="N", help="Row of a type II file, counted from 1.")
@click.option(
    "--seed", type=int, metavar="N", help="The same seed gives the same counts; drawn and shown if not given."
)
@click.option("--out", "-o", required=True, type=click.Path(), metavar="FILE", help="Spectrum to write.")
@click.option("--clobber", is_flag=True, help="Write over files that are there already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_context
def command(ctx, out, clobber, as_json, like, **choices):
    """Fold a model with the response of an observation, draw counts, and write them as a PHA file.

    The background of the observation is taken as the truth and drawn as well; the file links to the responses of
    the observation and to its own background, so that it can be fitted at once.

    \b
    deepspec fake --model "tbabs*powerlaw" --set PhoIndex=1.7 --like obs.pha --exposure 20000 --out fake.pha
    deepspec fake --model powerlaw --flux 2:10=1e-12 --rmf cam.rmf --arf cam.arf --exposure 1e4 --out fake.pha
    """
    from deepspec.fakes import fake, refuse_existing
    from deepspec.report import fake_table

    if not clobber:
        refuse_existing(out)
    made = fake(like=like, **options.given(choices))
    written = made.write(out, clobber)
    if as_json:
        document = {"files": [str(file) for file in written], **made.to_dict(), "command": ctx.obj}
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        show(fake_table(made.to_dict(), written))
