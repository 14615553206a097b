"""`deepspec plot`: figures of the learned component."""

from __future__ import annotations

import click

from deepspec_cli import options
from deepspec_cli.options import given, progress_bar, several

weights = click.option(
    "--weights",
    metavar="NAME|FILE",
    show_default="default",
    help="Weights, as `deepspec weights list` names them, or a file.",
)


def target(name: str):
    return click.option(
        "--out",
        "-o",
        type=click.Path(dir_okay=False),
        default=name,
        show_default=True,
        metavar="FILE",
        help="Picture to write: .png, .pdf or .svg.",
    )


resolution = click.option(
    "--dpi",
    type=click.FloatRange(30, 1200),
    default=150,
    show_default=True,
    metavar="N",
    help="Dots per inch of a .png.",
)
most_templates = click.option(
    "--most",
    type=click.IntRange(1),
    metavar="N",
    help="Templates to draw, those that change spectra most.",
    default=16,
    show_default=True,
)


@click.group(name="plot")
def command():
    """Draw what the learned component is made of, and what it makes of a spectrum."""


@command.command()
@weights
@most_templates
@target("components.png")
@resolution
def components(weights, most, out, dpi):
    """Draw the templates, each at its typical amplitude, with the energies of known lines.

    \b
    deepspec plot components
    deepspec plot components --weights run3/weights.h5 --most 32 -o templates.pdf
    """
    _write(lambda recipes: recipes.components(weights, most), out, dpi)


@command.command()
@weights
@click.option(
    "--reach",
    type=float,
    default=2.0,
    show_default=True,
    metavar="S",
    help="From -S to S standard deviations of the prior.",
)
@click.option("--count", type=int, default=9, show_default=True, metavar="N", help="Spectra along each coordinate.")
@target("latents.png")
@resolution
def latents(weights, reach, count, out, dpi):
    """Draw what each latent coordinate does: spectra along it, and their ratio to the one at 0.

    \b
    deepspec plot latents
    deepspec plot latents --weights mine --reach 3 -o mine.pdf
    """
    _write(lambda recipes: recipes.latents(weights, reach, count), out, dpi)


@command.command()
@weights
@click.option(
    "--sources",
    type=int,
    default=4000,
    show_default=True,
    metavar="N",
    help="Simulated sources, of all classes together.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the sources.")
@click.option("--most", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Templates to draw.")
@target("activation.png")
@resolution
def activation(weights, sources, seed, most, out, dpi):
    """Draw which class of source uses which template, for simulated sources that no training drew.

    \b
    deepspec plot activation
    deepspec plot activation --weights run3/weights.h5 --sources 20000 -o classes.png
    """
    _write(lambda recipes: recipes.activation(weights, sources, seed, most), out, dpi)


@command.command()
@click.argument("files", nargs=-1, metavar="FILE...", required=True)
@click.option(
    "--model",
    "-m",
    default="tbabs*deepspec",
    show_default=True,
    metavar="EXPR",
    help="Any model that `deepspec fit` takes.",
)
@weights
@several("--notice", "LO:HI", "Energies to fit [keV]; may be repeated. The band of the weights unless given.")
@several("--ignore", "LO:HI", "Energies to leave out [keV].")
@several("--group", "HOW", "Bins of the fit, as `deepspec fit --group`.", show_default="auto")
@click.option("--stat", metavar="NAME", show_default="auto", help="Statistic, as `deepspec fit --stat`.")
@options.responses
@options.parameters
@click.option("--crosscal/--no-crosscal", default=None, help="Give every file after the first a free constant.")
@click.option("--starts", type=int, metavar="N", show_default="16", help="Starting points of the fit.")
@click.option(
    "--draws", type=click.IntRange(50, 20000), default=512, show_default=True, metavar="N", help="From the posterior."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the starts and the draws."
)
@click.option(
    "--plot-min-sigma",
    type=float,
    default=3.0,
    metavar="S",
    show_default=True,
    help="Bins are joined in the plot, not in the fit, until each is this significant.",
)
@target("reconstruction.png")
@resolution
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and mistakes.")
@click.pass_context
def reconstruction(ctx, files, model, weights, draws, seed, plot_min_sigma, out, dpi, quiet, **choices):
    """Fit spectra and draw them with 68 and 95 % bands from the posterior: counts, residuals, and the unabsorbed spectrum.

    The bands are draws by tempered Monte Carlo that begins around the best fit; parameters without a prior are flat within their
    limits. Exit status as that of `deepspec fit`.

    \b
    deepspec plot reconstruction obs.pha -o obs.png
    deepspec plot reconstruction pn.pha mos1.pha --crosscal --weights run3/weights.h5
    deepspec plot reconstruction obs.pha --model "tbabs*(powerlaw+bbody)" --notice 0.4:9
    """
    from deepspec import api
    from deepspec.plots import recipes

    recipes.check_target(out)
    with progress_bar(quiet) as tell:
        fitted = api.fit(
            list(files), recipes.with_weights(model, weights), errors="none", seed=seed, progress=tell, **given(choices)
        )
        told = tell and (lambda done: tell("drawing from the posterior: likelihoods", done, None))
        made = recipes.reconstruction(fitted.problem, fitted.theta, draws, seed, plot_min_sigma, told)
    recipes.save(made.figure, out, dpi)
    for text in (*fitted.result.warnings, *made.warnings):
        click.echo(f"deepspec: warning: {text}", err=True)
    if not quiet:
        statistic = fitted.result.statistic
        click.echo(f"fit: {statistic.name} = {statistic.value:.2f} for {statistic.bins} bins")
        click.echo(str(made))
        click.echo(f"written: {out}")
    if not fitted.result.converged:
        click.echo(
            f"deepspec: the fit did not converge: {fitted.result.message}; raise --starts or simplify the model.",
            err=True,
        )
        ctx.exit(3)


def _write(make, out: str, dpi: float) -> None:
    """Draw and save one figure; nothing is computed for a file that cannot be written."""
    from deepspec.plots import recipes

    recipes.check_target(out)
    click.echo(f"written: {recipes.save(make(recipes), out, dpi)}")
