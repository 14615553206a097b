"""`deepspec tables`: the plasma tables that models are read from."""

from __future__ import annotations

import os
from pathlib import Path

import click

MODELS = ("mekal", "apec")


@click.group(name="tables")
def command():
    """List, describe and make the tables of plasma models.

    mekal and vmekal work at once: their table ships. apec and vapec need a table that is made once from the AtomDB files of
    your own HEASoft or CIAO:

        deepspec tables build apec --from $HEADAS/../spectral/modelData

    Tables you make are kept in the folder DEEPSPEC_TABLES, or in your user data folder, and come before shipped ones.
    """


@command.command(name="list")
def list_tables():
    """Say which tables there are, and where."""
    from deepspec.errors import UserError
    from deepspec.models.plasma import table_path, user_folder

    for model in MODELS:
        try:
            click.echo(f"{model + ', v' + model:<14}{table_path(model)}")
        except UserError as error:
            click.echo(f"{model + ', v' + model:<14}not made yet: {error.remedy}")
    click.echo(f"{'your tables':<14}{user_folder()}")


@command.command()
@click.argument("model", type=click.Choice(MODELS))
def info(model):
    """Describe the table of MODEL: its source, temperatures, energies and elements."""
    from deepspec.models.plasma import table_path
    from deepspec.models.plasma_table import read_plasma_table

    path = table_path(model)
    table = read_plasma_table(path)
    energy = table.nodes.energy([0, table.nodes.count - 1])
    rows = {
        "file": path,
        "source": table.about["source"],
        "made by": table.about["made_by"],
        "temperatures": f"{len(table.kT)} from {table.kT[0]:.4g} to {table.kT[-1]:.4g} keV, {table.rule} between them",
        "energies": f"{table.nodes.count} from {energy[0]:.4g} to {energy[1]:.4g} keV in the frame of the plasma",
        "spacing": f"{1e3 * (table.nodes.step * (1 + 1 / table.nodes.bend)):.2g} eV at 1 keV",
        "elements": " ".join(table.parts),
        "abundances": f"{table.about['abundances']} in the table, converted to the table you choose",
    }
    for label, words in rows.items():
        click.echo(f"{label:<14}{words}")


@command.command()
@click.argument("model", type=click.Choice(["apec"]))
@click.option(
    "--from", "source", metavar="FOLDER", help="modelData folder of HEASoft or CIAO; else XSPEC_MDATA_DIR or HEADAS."
)
@click.option("--out", metavar="FILE", help="Where to write the table; your tables folder unless given.")
@click.option(
    "--spacing",
    type=click.FloatRange(0.1, 20.0),
    default=2.2,
    show_default=True,
    metavar="EV",
    help="Spacing of the energies at 1 keV, growing as the square root of energy; less for gratings, at the cost of size.",
)
def build(model, source, out, spacing):
    """Make the table of MODEL (apec, which serves vapec too) from AtomDB files.

    FOLDER holds apec_v*_coco.fits and apec_v*_line.fits; the newest pair is taken. An example:

        deepspec tables build apec --from ~/heasoft/spectral/modelData
    """
    from deepspec.errors import UserError
    from deepspec.files import writing_failed
    from deepspec.models.atomdb import build_apec
    from deepspec.models.plasma import user_folder
    from deepspec.models.plasma_table import EnergyNodes

    path = Path(out) if out else user_folder() / f"{model}.h5"
    if not out:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise writing_failed(error, path) from error
    folders = [Path(source)] if source else default_folders()
    if not folders:
        raise UserError(
            "no folder of AtomDB files is known", source="--from", remedy="give --from FOLDER, or set HEADAS"
        )
    nodes = EnergyNodes.between(0.05, 100.0, step=1e-3 * spacing)
    with _progress() as tick:
        table = build_apec(folders[0], path, nodes, tick)
    click.echo(f"{path}: {len(table.kT)} temperatures, {table.about['source']}")


def default_folders() -> list[Path]:
    """Where an installed XSPEC keeps its model data: XSPEC_MDATA_DIR, else below HEADAS."""
    if named := os.environ.get("XSPEC_MDATA_DIR"):
        return [Path(named)]
    if headas := os.environ.get("HEADAS"):
        folders = [Path(headas) / "spectral" / "modelData", Path(headas).parent / "spectral" / "modelData"]
        return [folder for folder in folders if folder.is_dir()] or folders[-1:]
    return []


class _progress:
    """A bar on a terminal, nothing in a pipe."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self.bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.bar.start()
        task = self.bar.add_task("reading AtomDB", total=None)
        return lambda done, count: self.bar.update(task, completed=done, total=count)

    def __exit__(self, *details):
        self.bar.stop()
