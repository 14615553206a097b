"""A result as text for people: what was read, the parameters with intervals, statistic, fluxes, warnings."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deepspec.results import DataResult, FitResult, FluxResult, ParameterResult

#: Width of tables that go to a file or a pipe.
PIPE_WIDTH = 120


# --- numbers --------------------------------------------------------------------------------------------------------


def decimals(error: float) -> int:
    """Position of the last digit worth showing: two digits of the error, as in 0.213 +- 0.011."""
    return 1 - math.floor(math.log10(error))


def quantity(value: float, error: float | None = None) -> str:
    """A value with as many digits as its error deserves; powers of ten where there would be many zeros.

    Examples
    --------
    >>> quantity(1.70321, 0.0213), quantity(2.4913e-5, 3.1e-7), quantity(0.02), quantity(11526.0)
    ('1.703', '2.491e-05', '0.02', '11526')
    """
    if not math.isfinite(value):
        return "-"
    usable = error is not None and math.isfinite(error) and error > 0
    if value == 0 and not usable:
        return "0"
    size = math.floor(math.log10(max(abs(value), error if usable else 0.0)))
    places = min(decimals(error), 15) if usable else None
    if size < -3 or size >= 6:
        digits = 4 if places is None else max(places + size, 0)
        return f"{value:.{digits}e}"
    if places is None:
        return f"{value:.6g}"
    return f"{value:.{max(places, 0)}f}"


def half_width(lower: float | None, value: float, upper: float | None) -> float | None:
    """The smaller distance from the value to an end of its interval that is not zero."""
    ends = [abs(end - value) for end in (lower, upper) if end is not None and end != value]
    return min(ends) if ends else None


def interval(lower: float | None, value: float, upper: float | None) -> str:
    """ "-0.011 / +0.012" around a value, with the digits of `quantity`; empty without an interval."""
    if lower is None and upper is None:
        return ""
    error = half_width(lower, value, upper)
    shown = [None if end is None else quantity(abs(end - value), error) for end in (lower, upper)]
    if None not in shown and shown[0] == shown[1]:
        return f"± {shown[0]}"
    return " ".join(f"{sign}{text}" for sign, text in zip("-+", shown, strict=True) if text is not None)


# --- pieces ---------------------------------------------------------------------------------------------------------


def _table(*columns: str, right: Sequence[int] = (), whole: Sequence[int] = ()) -> Table:
    """A plain table; `right` columns are flushed right, `whole` ones are never broken in a narrow window."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left", overflow="fold", no_wrap=i in whole)
    return table


def data_block(data: Sequence[DataResult]) -> Group:
    """What was read and how much of it is fitted, two lines per observation, notes below."""
    lines: list[Any] = []
    for i, item in enumerate(data, start=1):
        head = f"data {i}" if len(data) > 1 else "data"
        what = ", ".join(part for part in (item.instrument, item.target) if part)
        net = "" if item.net_counts is None else f", {item.net_counts:.1f} net of background"
        lines.append(Text.assemble((f"{head:<8}", "bold"), item.file, f" ({what})" if what else ""))
        lines.append(_indented(f"{item.exposure:,.1f} s, {item.counts:g} counts{net}"))
        lines.append(_indented(item.rule))
        lines.append(_indented(f"grouping: {item.grouping}"))
        lines += [_indented(f"note: {note}", "dim") for note in item.notes]
    return Group(*lines)


def _indented(text: str, style: str = "", by: int = 8) -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, by))


def state_of(item: ParameterResult) -> str:
    """free, frozen, linked, at a limit; and the prior."""
    if item.link:
        return f"= {item.link}"
    if item.frozen:
        return "frozen"
    words = [
        "at limit" if item.at_limit and item.lower68 is None else "interval ends at a limit" if item.at_limit else ""
    ]
    words.append(f"prior {item.prior}" if item.prior else "")
    return ", ".join(word for word in words if word)


def parameter_table(result: FitResult) -> Table:
    """Number, component, name, value, 68 % interval, unit, state."""
    wider = any(p.lower is not None for p in result.parameters.values())
    delta = result.config.get("delta", 1.0)
    columns = [
        "",
        "component",
        "parameter",
        "value",
        "68 % interval",
        *([f"rise of {delta:g}"] if wider else []),
        "unit",
        "",
    ]
    table = _table(*columns, right=[0, 3], whole=[0, 1, 2, 3, 4])
    for i, (key, item) in enumerate(result.parameters.items(), start=1):
        component, _, name = key.rpartition(".")
        error = half_width(item.lower68, item.value, item.upper68)
        row = [str(i), component, name, quantity(item.value, error), interval(item.lower68, item.value, item.upper68)]
        row += [interval(item.lower, item.value, item.upper)] if wider else []
        fixed = item.frozen or item.link
        table.add_row(*row, unit_text(item.unit), state_of(item), style="dim" if fixed else None)
    return table


def unit_text(unit: str) -> str:
    """A unit as people write it."""
    return {"10^22": "10^22 cm^-2"}.get(unit, unit)


def statistic_lines(result: FitResult) -> list[Any]:
    """Statistic over degrees of freedom, why it was chosen, and what would be expected."""
    s = result.statistic
    head = f"{s.name} = {s.value:.2f} for {s.dof} degrees of freedom ({s.bins} bins)"
    lines: list[Any] = [Text.assemble(("statistic  ", "bold"), head)]
    if len(s.per_data) > 1:
        parts = [f"{p['name']} {p['value']:.2f} / {p['bins']} bins" for p in s.per_data]
        lines.append(_indented(", ".join(parts), by=11))
    if s.why and s.why != "asked for":
        lines.append(_indented(s.why, "dim", by=11))
    if s.expected is not None and s.expected_sigma:
        away = (s.value - s.expected) / s.expected_sigma
        said = f"expected {s.expected:.1f} ± {s.expected_sigma:.1f} if the model is right: {away:+.1f} sigma"
        lines.append(_indented(said + ("" if s.expected_p is None else f", p = {s.expected_p:.2g}"), by=11))
    if result.goodness:
        g = result.goodness
        said = (
            f"{g['percent_below']:.1f} % of {g['simulations']} simulated data sets fit better (p = {g['p_value']:.3g})"
        )
        lines.append(_indented(said, by=11))
    return lines


def latent_lines(result: FitResult) -> list[Padding]:
    """How far out the coordinates of each learned component lie in their prior, and what was minimised."""
    if not result.prior or not result.prior["latents"]:
        return []
    lines = [
        f"{label}: |z|^2 = {found['square']:.1f} for {found['dimension']} coordinates; "
        f"{100.0 * found['probability']:.2g} % of the sources trained on lie farther out"
        for label, found in result.prior["latents"].items()
    ]
    lines.append(
        f"statistic with priors {result.prior['objective']:.2f}; the data decide {result.prior['effective_parameters']:.1f} parameters"
    )
    return [_indented(line, "dim", by=11) for line in lines]


def flux_table(fluxes: Sequence[FluxResult]) -> Table:
    """A line per flux: band, kind, value with its interval, unit, and whether the band leaves the data."""
    table = _table("band [keV]", "flux", "value", "unit", "", whole=[0, 1, 2])
    last = None
    for flux in fluxes:
        shown = "" if flux.band == last else f"{flux.band[0]:g}-{flux.band[1]:g}"
        table.add_row(shown, flux.kind, flux_text(flux), flux.unit, "extrapolated" if flux.outside_data else "")
        last = flux.band
    return table


def flux_text(flux: FluxResult) -> str:
    """ "(1.234 -0.021 +0.022)e-13"."""
    if flux.value <= 0 or not math.isfinite(flux.value):
        return quantity(flux.value)
    power = math.floor(math.log10(flux.value))
    scaled = [None if v is None else v / 10.0**power for v in (flux.lower68, flux.value, flux.upper68)]
    error = half_width(*scaled)
    if error is None:
        return f"{flux.value:.4g}"
    return f"({quantity(scaled[1], error)} {interval(*scaled)})e{power:+03d}"


def fit_table(result: FitResult) -> Group:
    """Everything `deepspec fit` prints."""
    parts: list[Any] = [data_block(result.data)]
    parts += [Text.assemble(("model   ", "bold"), result.model), *settings_lines(result), Text()]
    parts += [parameter_table(result), Text(), *statistic_lines(result), engine_line(result)]
    parts += [*latent_lines(result), Text()]
    if result.fluxes:
        parts.append(flux_table(result.fluxes))
    if not result.converged:
        parts += [Text(), Text(f"NOT CONVERGED: {result.message}", style="bold red")]
    if result.warnings:
        parts += [Text(), *(Text(f"warning: {text}", style="yellow") for text in result.warnings)]
    return Group(*parts)


def settings_lines(result: FitResult) -> list[Padding]:
    """Choices that are no parameters, for instance abundances, once for all components that share them."""
    grouped: dict[str, list[str]] = {}
    for label, chosen in result.settings.items():
        # A file is shown by its name; result.json has the whole path.
        said = (f"{k.replace('_', ' ')} {Path(v).name if isinstance(v, str) else v}" for k, v in chosen.items())
        grouped.setdefault(", ".join(said), []).append(label)
    return [_indented(f"{', '.join(labels)}: {text}", "dim") for text, labels in grouped.items()]


def engine_line(result: FitResult) -> Padding:
    """How the minimum was found."""
    e = result.engine
    how = f"{e['agreeing']} of {e['starts']} starts within 0.1 of the best" if e["starts"] > 1 else "one start"
    return _indented(f"{result.message}; {how}, {e['evaluations']} evaluations", "dim", by=11)


# --- components -----------------------------------------------------------------------------------------------------


def component_table(components: Iterable[dict[str, Any]]) -> Table:
    """A line per component: name, kind, origin, parameters."""
    table = _table("component", "kind", "from", "parameters", "what")
    for item in components:
        names = " ".join(p["name"] for p in item["parameters"])
        table.add_row(item["name"], item["kind"], item["origin"], names, item["summary"])
    return table


def component_details(item: dict[str, Any]) -> Group:
    """One component: text, source, parameters with units, defaults and limits."""
    table = _table("parameter", "unit", "default", "hard min", "min", "max", "hard max", "", right=[2, 3, 4, 5, 6])
    for p in item["parameters"]:
        state = "switch" if p["switch"] else "frozen" if p["frozen"] else ""
        limits = [_limit(p[k]) for k in ("hard_min", "soft_min", "soft_max", "hard_max")]
        table.add_row(p["name"], unit_text(p["unit"]), f"{p['default']:g}", *limits, state)
    head = Text.assemble((item["name"], "bold"), f"  {item['kind']}, {item['origin']}")
    source = [Text(f"Source: {item['source']}")] if item["source"] else []
    return Group(head, Text(), Text(item["description"]), *source, Text(), table)


def _limit(value: float | None) -> str:
    return "" if value is None or abs(value) >= 1e20 else f"{value:g}"


# --- weights --------------------------------------------------------------------------------------------------------


def weights_table(found: Iterable[dict[str, Any]]) -> Table:
    """A line per file of weights: name, whose, latent coordinates, size, hash, when it was made, what it is."""
    table = _table("name", "from", "latents", "size", "hash", "made", "what", right=[2, 3], whole=[0, 1, 2, 3, 4])
    for item in found:
        whose = "yours" if item["own"] else "package"
        if "wrong" in item:
            table.add_row(item["name"], whose, "", "", "", "", item["wrong"], style="yellow")
            continue
        card, size = item["card"], f"{item['bytes'] / 1e6:.1f} MB"
        made, what = str(card.get("made", "")), str(card.get("summary", ""))
        table.add_row(item["name"], whose, str(item["latent"]), size, item["sha256"][:12], made, what)
    return table


def weights_details(item: dict[str, Any]) -> Group:
    """The file, its networks, and the card entry by entry."""
    networks = ", ".join(f"{name} {count:,}" for name, count in item["parameters"].items())
    rows = {
        "file": item["file"],
        "sha256": item["sha256"],
        "size": f"{item['bytes'] / 1e6:.2f} MB",
        "coordinates": f"{item['latent']}, z1 to z{item['latent']}, each with the prior N(0,1)",
        "trained on": f"data of {item['band'][0]:g}-{item['band'][1]:g} keV; photons in {item['range'][0]:g}-{item['range'][1]:g} keV",
        "weights": networks,
    }
    lines: list[Any] = [_entry(name, value) for name, value in rows.items()]
    for name, config in item["networks"].items():
        lines.append(_entry(name, ", ".join(f"{k} {_short(v)}" for k, v in config.items())))
    for name, value in item["card"].items():
        if name != "band":
            lines += _card_lines(str(name), value)
    return Group(*lines)


def _entry(name: str, value: Any) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=14, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(name.replace("_", " "), str(value))
    return grid


def _card_lines(name: str, value: Any) -> list[Any]:
    """One entry of a card: a line, or a table where it is a list of records of the same kind."""
    records = isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    if records:
        table = _table(*(str(key).replace("_", " ") for key in value[0]))
        for row in value:
            table.add_row(*(_short(row.get(key)) for key in value[0]))
        return [_entry(name, ""), Padding(table, (0, 0, 0, 2))]
    if isinstance(value, dict):
        nested = [line for key, inner in value.items() for line in _card_lines(str(key), inner)]
        return [_entry(name, ""), Padding(Group(*nested), (0, 0, 0, 2))]
    return [_entry(name, _short(value))]


def _short(value: Any) -> str:
    """A value of a card as people write it."""
    if isinstance(value, float):
        return quantity(value) if value == value else "-"
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return "" if value is None else str(value)


# --- fake spectra ---------------------------------------------------------------------------------------------------


def fake_table(made: dict[str, Any], files: Sequence[Path]) -> Group:
    """What `deepspec fake` drew and wrote."""
    parts: list[Any] = [
        Text.assemble(("model     ", "bold"), made["model"]),
        _indented(", ".join(f"{key} = {value:g}" for key, value in made["parameters"].items()), by=10),
        Text.assemble(("exposure  ", "bold"), f"{made['exposure']:,.1f} s"),
        Text.assemble(
            ("counts    ", "bold"),
            f"{made['counts']:g} drawn; expected {made['expected_source']:.1f} from the model and "
            f"{made['expected_background']:.1f} from the background",
        ),
    ]
    if made["background_counts"] is not None:
        parts.append(_indented(f"{made['background_counts']:g} drawn in the background region", by=10))
    parts.append(Text.assemble(("seed      ", "bold"), str(made["seed"])))
    parts += [_indented(f"note: {note}", "dim", by=10) for note in made["notes"]]
    parts.append(Text.assemble(("written   ", "bold"), ", ".join(map(str, files))))
    return Group(*parts)


# --- out ------------------------------------------------------------------------------------------------------------


def console(stream: Any = None) -> Console:
    """A console on a stream: colours and the width of the window on a terminal, plain lines anywhere else."""
    import sys

    stream = sys.stdout if stream is None else stream
    terminal = hasattr(stream, "isatty") and stream.isatty()
    return Console(
        file=stream,
        width=None if terminal else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=not terminal,
        force_terminal=terminal,
        soft_wrap=False,
    )


def as_text(renderable: Any, width: int = PIPE_WIDTH) -> str:
    """Plain text without control codes, no trailing blanks."""
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, markup=False, emoji=False, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
