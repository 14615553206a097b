"""`deepspec info`: what is in a spectrum file."""

from __future__ import annotations

import os

import click


@click.command(name="info")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--row", type=int, help="Row of a type II file, counted from 1 (or write FILE{3}).")
@click.option("--arf", metavar="FILE", help="Effective area in place of ANCRFILE; 'none' for none.")
@click.option("--rmf", metavar="FILE", help="Response matrix in place of RESPFILE; 'none' for none.")
@click.option("--bkg", metavar="FILE", multiple=True, help="Background in place of BACKFILE; 'none' for none.")
@click.option("--rmf-dir", metavar="FOLDER", help="Folder of canned response matrices (or set DEEPSPEC_RMF_DIR).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(files, row, arf, rmf, bkg, rmf_dir, as_json):
    """Say what is in each FILE.

    Exposure, counts, background, responses found or missing, grouping, quality, the usable band, and warnings.
    """
    from deepspec.io.summary import summarize

    options = {"row": row, "arf": arf, "rmf": rmf, "background": list(bkg) or None, "rmf_dir": rmf_dir}
    found = [summarize(file, **options) for file in files]
    if as_json:
        import json

        click.echo(json.dumps({"data": found}, indent=2, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    for number, facts in enumerate(found):
        if number:
            console.print()
        _show(console, facts)


def _show(console, facts) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(facts["file"]), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, words in _rows(facts):
        table.add_row(label, escape(words))
    console.print(table)
    for warning in facts["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)


def _rows(facts):
    header = facts["header"]
    instrument = " ".join(str(header[key]) for key in ("TELESCOP", "INSTRUME", "FILTER") if key in header)
    yield "instrument", instrument or "not named"
    yield "observation", ", ".join(str(header[key]) for key in ("OBJECT", "OBS_ID", "DATE-OBS") if key in header) or "-"
    yield "exposure", f"{facts['exposure']:,.1f} s"
    kind = "counts" if facts["poisson"] else "not Poisson counts"
    yield "counts", f"{facts['counts']:,.6g} in good channels ({kind}{', from rates' if facts['rates'] else ''})"
    bad = facts["bad_channels"]
    yield "channels", f"{facts['channels']} from {facts['first_channel']}, {bad} flagged bad"
    yield "grouping", _grouping(facts)
    folder = os.path.dirname(facts["file"])
    yield "background", _background(facts["background"], folder)
    yield "response", _response(facts["response"], folder)
    band, counts = facts["usable_band"], facts["counts_in_band"]
    if band:
        net = f"{counts['total']:,.6g} counts, net {counts['net']:,.6g}"
        yield "usable band", f"{band[0]:.3g}-{band[1]:.3g} keV: {net}"


def _grouping(facts) -> str:
    own = f"{facts['file_groups']} groups in the file" if facts["file_groups"] else "none in the file"
    return f"{own}; a fit uses {facts['default_grouping']} unless --group says otherwise"


def _shown(path: str, folder: str) -> str:
    """The name as a link in the file would give it."""
    return os.path.relpath(path, folder or ".")


def _background(background, folder: str) -> str:
    if background is None:
        return "none"
    names = ", ".join(dict.fromkeys(_shown(name, folder) for name in background["files"]))
    scaled = f"{background['scaled_counts']:,.6g} in the source region"
    return f"{names}: {background['counts']:,.6g} counts, {scaled}"


def _response(response, folder: str) -> str:
    if response is None:
        return "none"
    low, high = response["energy_range"]
    area = f"area up to {response['largest_area']:.4g} cm2 at {response['largest_area_at']:.3g} keV"
    source = _shown(response["arf"], folder) if response["arf"] else "the matrix"
    return f"{_shown(response['rmf'], folder)}: {low:.3g}-{high:.3g} keV; {area} from {source}"
