"""`deepspec fit`."""

from __future__ import annotations

import click

from deepspec.choices import ERRORS
from deepspec.inference import ENGINES
from deepspec_cli import options
from deepspec_cli.options import given, progress_bar, several, show


@click.command(short_help="Fit a model to one or several spectra.")
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option(
    "--model", "-m", metavar="EXPR", help='Such as "tbabs*(powerlaw+bbody)"; `deepspec models` lists the components.'
)
@several("--notice", "LO:HI", "Energies to fit [keV]; may be repeated, ends may be left out. N=LO:HI for file N only.")
@several("--ignore", "LO:HI", "Energies to leave out [keV]; N=LO:HI for file N only.")
@click.option(
    "--rule",
    type=click.Choice(["touching", "inside"]),
    show_default="touching",
    help="Which bins a range selects: those that share energy with it (as Sherpa and XSPEC), or those wholly inside.",
)
@several(
    "--group",
    "HOW",
    "none, file, min:N counts, snr:X, width:KEV, optimal (Kaastra & Bleeker 2016), minbkg:N background counts, or several joined by +; auto is optimal, with minbkg:5 where the background matters. N=HOW for file N only.",
    show_default="auto",
)
@click.option(
    "--stat",
    metavar="NAME",
    show_default="auto",
    help="cstat, wstat, pgstat, chi2, chi2datavar, chi2gehrels, chi2churazov, chi2modvar, chi2constvar; auto lets the data decide and says why.",
)
@options.responses
@click.option("--row", type=int, metavar="N", help="Row of a type II file, counted from 1; the same as FILE{N}.")
@click.option(
    "--use-errors/--no-use-errors",
    default=None,
    help="Put STAT_ERR of the file in force although the counts could be Poisson counts.",
)
@options.parameters
@click.option("--crosscal/--no-crosscal", default=None, help="Give every file after the first a free constant.")
@click.option(
    "--abund",
    metavar="TABLE",
    show_default="wilm",
    help="Solar abundances of absorbers and plasmas: wilm, angr, aspl, lodd, grsa, feld, aneb, lpgp, lpgs.",
)
@click.option(
    "--engine",
    type=click.Choice(list(ENGINES)),
    show_default="maximum",
    help="What finds the answer; maximum is maximum likelihood.",
)
@click.option(
    "--starts",
    type=int,
    metavar="N",
    show_default="16",
    help="Starting points carried to convergence, your values among them.",
)
@click.option("--seed", type=int, metavar="N", show_default="0", help="Of the random starts and simulations.")
@click.option(
    "--errors",
    type=click.Choice(ERRORS),
    show_default="covariance",
    help="68 % intervals from the covariance (exact second derivatives), or where the profile of the statistic rises by 1 (XSPEC's `error`).",
)
@click.option(
    "--delta",
    type=float,
    metavar="D",
    show_default="1",
    help="With --errors profile also the interval at this rise; 2.706 is 90 %.",
)
@several(
    "--steppar",
    "PAR=LO:HI:N",
    "Statistic over a grid of one parameter, or of two if given twice, the others fitted at each point.",
)
@several("--flux", "LO:HI", "Bands for fluxes [keV].", show_default="0.5:2 and 2:10")
@click.option(
    "--redshift",
    type=float,
    metavar="Z",
    help="Also unabsorbed luminosities in the rest frame (H0 = 70, flat, matter 0.3).",
)
@click.option("--goodness", type=int, metavar="N", help="Simulate and refit N data sets: is the statistic typical?")
@click.option(
    "--config",
    type=click.Path(),
    metavar="FILE",
    help="result.json of an earlier fit to repeat; other options take the place of what it says.",
)
@click.option("--out", type=click.Path(), metavar="DIR", help="Write result.json and the plots here.")
@click.option("--no-plots", is_flag=True, help="With --out: no plots.")
@click.option(
    "--plot-min-sigma",
    type=float,
    default=3.0,
    metavar="S",
    show_default=True,
    help="Bins are joined in the plots, not in the fit, until each is this significant.",
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json and nothing else.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and mistakes.")
@click.pass_context
def command(ctx, files, config, out, no_plots, plot_min_sigma, as_json, quiet, **choices):
    """Fit a model to one or several spectra; print parameters, errors and fluxes.

    Responses and background come from the header of each FILE. Exit status: 0 for a fit, 2 for a mistake in what
    was asked, 3 for a fit that did not converge (its result is written and marked).

    \b
    deepspec fit src.pha --model "tbabs*(powerlaw+bbody)" --notice 0.4:9 --out fit1
    deepspec fit pn.pha mos1.pha mos2.pha --model "tbabs*diskbb" --crosscal
    deepspec fit src.pha --model "tbabs*powerlaw" --fix nH=0.02 --errors profile --json
    deepspec fit --config fit1/result.json --thaw nH
    """
    from deepspec import api

    if out is not None:
        api.check_folder(out)
    with progress_bar(quiet or as_json) as progress:
        fitted = api.fit(list(files) or None, config=config, progress=progress, command=ctx.obj, **given(choices))
    if as_json:
        click.echo(fitted.result.to_json())
    elif not quiet:
        show(api.as_table(fitted))
    written = api.save_fit(fitted, out, not no_plots, plot_min_sigma) if out is not None else []
    if written and not (as_json or quiet):
        click.echo("written: " + ", ".join(map(str, written)))
    if quiet and not as_json:
        for text in fitted.result.warnings:
            click.echo(f"deepspec: warning: {text}", err=True)
    if not fitted.result.converged:
        click.echo(
            f"deepspec: the fit did not converge: {fitted.result.message}; raise --starts or simplify the model.",
            err=True,
        )
        ctx.exit(3)
