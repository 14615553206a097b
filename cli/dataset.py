"""`deepspec dataset`: catalogues of real spectra to train with."""

from __future__ import annotations

import json

import click

from deepspec_cli.options import progress_bar, several


@click.group(name="dataset")
def command():
    """Collect spectra of a survey into one file to train with, and describe such a file."""


def parse_band(ctx, parameter, value):
    """LO:HI as two numbers."""
    from deepspec.errors import UserError

    low, colon, high = value.partition(":")
    try:
        return float(low), float(high if colon else "missing")
    except ValueError as error:
        raise UserError(f"'{value}' is not a range", source="--band", remedy="write LO:HI in keV, as 0.3:10") from error


@command.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@click.option("--out", "-o", required=True, type=click.Path(), metavar="FILE", help="Catalogue to write (HDF5).")
@several(
    "--rmf",
    "FOLDER|NAME=FILE",
    "Where response matrices are: a folder that is searched by the name in RESPFILE, or the file for a name; * and ? may stand in NAME.",
)
@click.option(
    "--table",
    type=click.Path(),
    metavar="FILE",
    help="Catalogue of detections (FITS: OBS_ID, SRC_NUM, SUM_FLAG, and SRCID if there); what is not in it is left out.",
)
@click.option(
    "--min-counts",
    type=int,
    default=200,
    show_default=True,
    metavar="N",
    help="Least counts of the source region in the band, background included.",
)
@click.option(
    "--sum-flag-below",
    type=int,
    default=3,
    show_default=True,
    metavar="N",
    help="Leave out detections of --table with SUM_FLAG N or more.",
)
@click.option(
    "--band", default="0.3:10", show_default=True, callback=parse_band, metavar="LO:HI", help="Energies to use [keV]."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted build, or add new spectra to a catalogue.")
@click.option("--clobber", is_flag=True, help="Begin anew, whatever is there.")
@click.option("--jobs", "-j", type=int, metavar="N", help="Processes; as many as there are processors by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_context
def build(ctx, folders, out, as_json, **choices):
    """Collect the spectra below each FOLDER into one file.

    Spectra are XMM pipeline products (P<observation><camera><exposure>SRSPEC<source>.FTZ with BGSPEC and SRCARF) and other PHA
    files whose headers name background, area and matrix. Counts go to 238 bins in 0.3-10 keV; each response matrix is kept
    once. What is left out is listed, with the reason, in a .rejected.csv beside the catalogue and in the catalogue itself.

        deepspec dataset build pps/ --rmf ccf/rmf --table 4XMM_DR14cat.fits -o xmm.h5
    """
    from deepspec.training.catalogue_build import build as collect
    from deepspec.training.products import how_to_give

    try:
        with progress_bar(as_json) as tell:
            made = collect(folders, out, tell=tell, **choices)
    except KeyboardInterrupt:
        click.echo("deepspec: interrupted; what was done is kept, and --resume goes on with it.", err=True)
        ctx.exit(130)
    if as_json:
        click.echo(json.dumps({**made.to_dict(), "command": ctx.obj}, indent=2, allow_nan=False))
        return
    rate = f"; {made.looked_at} looked at in {made.seconds:.1f} s" if made.looked_at else "; nothing new"
    click.echo(f"{made.path}: {made.kept} spectra, {made.bytes / 1e6:.1f} MB{rate}")
    _show_rejected(made.rejected)
    if made.rejected:
        click.echo(f"each is listed in {made.log}")
    for name, count in made.missing.items():
        click.echo(f"{count} want {name}: {how_to_give(name)}, and --resume")


@command.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def info(file, as_json):
    """Describe the catalogue FILE: spectra, cameras, matrices, counts, and what was left out."""
    from dataclasses import asdict

    from deepspec.training.dataset import Dataset, describe

    facts = describe(Dataset(file))
    if as_json:
        click.echo(json.dumps(asdict(facts), indent=2, allow_nan=False))
        return
    settings = facts.settings
    band = ":".join(f"{edge:g}" for edge in settings.get("band", ()))
    flag = f", SUM_FLAG below {settings['sum_flag_below']} in {settings['table']}" if settings.get("table") else ""
    rows = {
        "file": f"{facts.path}, {facts.bytes / 1e6:.1f} MB",
        "made": f"{facts.made.get('made', '')} by deepspec {facts.made.get('deepspec', '')}",
        "spectra": f"{facts.spectra} of {facts.sources} sources in {facts.observations} observations",
        "cameras": ", ".join(f"{name} {count}" for name, count in facts.cameras.items()),
        "chosen": f"at least {settings.get('min_counts')} counts in {band} keV{flag}",
        "counts": _range(facts.counts, "{:.0f}"),
        "net counts": _range(facts.net, "{:.0f}"),
        "exposure": _range(facts.exposure, "{:.4g}") + " s",
        "validation": f"{facts.validation} spectra, by a hash of the source",
    }
    for label, words in rows.items():
        click.echo(f"{label:<12}{words}")
    for label, table in (("matrices", facts.matrices), ("left out", facts.rejected)):
        for number, (name, count) in enumerate(table.items()):
            click.echo(f"{'' if number else label:<12}{count:>8}  {name}")


def _range(values: dict[str, float], form: str) -> str:
    if not values:
        return "none"
    least, median, most = (form.format(values[key]) for key in ("least", "median", "most"))
    return f"{least} to {most}, median {median}"


def _show_rejected(rejected: dict[str, int]) -> None:
    from deepspec.training.spectrum_rows import REASONS

    for reason, count in rejected.items():
        click.echo(f"{count:>8} left out: {REASONS.get(reason, reason)}")
