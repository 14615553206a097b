"""Rows of the comparison on real spectra as a summary and as tables of the documentation. Pure functions of plain data."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence

BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
#: A difference this small is none: fits converge to 1e-6, minima of the panel are checked to about this.
SLACK = 0.01


def difference(row: dict) -> float:
    """Statistic of the learned component less that of the best of the panel."""
    return row["learned"] - row["best_value"]


def summary(rows: Sequence[dict]) -> dict:
    """Counts and quantiles over some rows, all with a learned fit.

    Returns
    -------
    dict
        ``n``; ``at_or_below``, ``within_2``, ``within_5`` the best of nine; ``median``, ``worst`` difference; ``one_component``,
        ``powerlaw``: at or below the best of five, below the power law; ``aic``, ``aic_2``: statistic + 2 (effective) parameters at or below the
        best of nine by the same, and within 2; ``half``, ``half_n``: the other half of the counts better predicted, over all seeds.
    """
    gaps = [difference(row) for row in rows]
    halves = [half for row in rows for half in row.get("halves", ()) if "learned_score" in half]
    better = [half["learned_score"] < half["score"] for half in halves]
    by_aic = [row["learned_aic"] - row["aic"] for row in rows]
    return {
        "n": len(rows),
        "at_or_below": sum(gap <= SLACK for gap in gaps),
        "within_2": sum(gap <= 2.0 + SLACK for gap in gaps),
        "within_5": sum(gap <= 5.0 + SLACK for gap in gaps),
        "median": statistics.median(gaps),
        "worst": max(gaps),
        "worst_name": rows[gaps.index(max(gaps))]["name"],
        "one_component": sum(row["learned"] <= row["best_one"] + SLACK for row in rows),
        "powerlaw": sum(row["learned"] < row["powerlaw"] for row in rows),
        "aic": sum(gap <= SLACK for gap in by_aic),
        "aic_2": sum(gap <= 2.0 + SLACK for gap in by_aic),
        "half": sum(better),
        "half_n": len(better),
        "half_median": statistics.median(h["learned_score"] - h["score"] for h in halves) if halves else None,
    }


#: Selections of rows that the summary shows.
SELECTIONS: dict[str, Callable[[dict], bool]] = {
    "all but those listed apart": lambda row: not row["outside"],
    "named sets": lambda row: not row["outside"] and not row["name"].startswith("field_"),
    "named sets, nothing borrowed, piled up or above 1e5 counts": lambda row: (
        not row["outside"] and not row["blemish"] and not row["name"].startswith("field_")
    ),
    "field sources": lambda row: row["name"].startswith("field_"),
    "field sources with more than 200 net counts": lambda row: row["name"].startswith("field_") and row["net"] > 200,
    "the prototypes' 35": lambda row: row["prototype"],
}


def summaries(rows: Sequence[dict]) -> dict[str, dict]:
    """The summary of every selection and camera that has rows."""
    rows = [row for row in rows if "learned" in row]
    chosen = dict(SELECTIONS)
    for camera in dict.fromkeys(row["camera"] for row in rows):
        chosen[camera] = lambda row, camera=camera: row["camera"] == camera and not row["outside"]
    picked = {name: [row for row in rows if test(row)] for name, test in chosen.items()}
    return {name: summary(some) for name, some in picked.items() if some}


HEAD = (
    "spectra",
    "number",
    "<= best of nine",
    "<= +2",
    "<= +5",
    "median",
    "worst",
    "<= best of five with one component",
    "< powerlaw",
    "AIC <= best",
    "AIC <= +2",
    "half predicts half better",
)


def summary_table(rows: Sequence[dict]) -> str:
    """The summaries as a Markdown table."""
    lines = []
    for name, found in summaries(rows).items():
        half = f"{found['half']} of {found['half_n']} ({found['half_median']:+.1f})" if found["half_n"] else ""
        numbers = [found[key] for key in ("n", "at_or_below", "within_2", "within_5")]
        ends = [f"{found['median']:+.2f}", f"{found['worst']:+.1f} ({found['worst_name']})"]
        rest = [found[key] for key in ("one_component", "powerlaw", "aic", "aic_2")]
        lines.append([name, *numbers, *ends, *rest, half])
    return _table(HEAD, lines)


def spectra_table(rows: Sequence[dict]) -> str:
    """One line a spectrum."""
    learned = any("learned" in row for row in rows)
    head = [
        "spectrum",
        "band (keV)",
        "counts",
        "net",
        "bins",
        "best of nine",
        "its parameters",
        "statistic",
        "powerlaw",
    ]
    head += ["learned", "difference", "\\|z\\|²", "p", "AIC difference"] * learned
    lines = []
    for row in rows:
        cells = [row["name"] + ("\\*" if row["blemish"] else ""), f"{row['band'][0]:g}-{row['band'][1]:g}"]
        cells += [f"{row['counts']:.0f}", f"{row['net']:.0f}", row["bins"], row["best"].replace("*", "\\*")]
        cells += [parameters_text(row), f"{row['best_value']:.2f}", f"{row['powerlaw']:.2f}"]
        if "learned" in row:
            cells += [
                f"{row['learned']:.2f}",
                f"{difference(row):+.2f}",
                f"{row['prior']:.1f}",
                f"{row['effective']:.1f}",
            ]
            cells += [f"{row['learned_aic'] - row['aic']:+.2f}"]
        lines.append(cells)
    return _table(head, lines)


def parameters_text(row: dict) -> str:
    """Parameters of the best classical model without norms; those at a limit in brackets."""
    words = []
    for key, value in row["best_values"].items():
        component, _, name = key.rpartition(".")
        if name != "norm":
            label = "nH" if key == "tbabs.nH" else f"nH {component}" if name == "nH" else name
            text = f"{label} {value:.3g}"
            words.append(f"({text})" if key in row["best_at_limit"] else text)
    return ", ".join(words)


def halves_table(rows: Sequence[dict]) -> str:
    """Scores on the half of the counts that was not fitted, first split."""
    head = ["spectrum", "chosen by AIC", "its score", "learned", "difference"]
    lines = []
    for row in rows:
        half = row["halves"][0] if row.get("halves") else {}
        if "learned_score" in half:
            gap = half["learned_score"] - half["score"]
            model = half["model"].replace("*", "\\*")
            lines.append([row["name"], model, f"{half['score']:.2f}", f"{half['learned_score']:.2f}", f"{gap:+.2f}"])
    return _table(head, lines) if lines else ""


def page(rows: Sequence[dict], facts: dict) -> str:
    """All tables, as they stand between the markers of docs/real-spectra.md."""
    inside = [row for row in rows if not row["outside"]]
    apart = [row for row in rows if row["outside"]]
    parts = [facts_text(facts)]
    if any("learned" in row for row in rows):
        parts += ["### Summary", summary_table(rows)]
    named = [row for row in inside if not row["name"].startswith("field_")]
    field = [row for row in inside if row["name"].startswith("field_")]
    for title, some in (("Named sets", named), ("Field sources", field), ("Listed apart", apart)):
        if some:
            parts += [f"### {title}", spectra_table(some)]
    notes = [f"{row['name']}: {row['outside'] or row['blemish']}" for row in rows if row["outside"] or row["blemish"]]
    if notes:
        parts.append("\\* or apart: " + "; ".join(notes) + ".")
    if halves := halves_table(inside):
        parts += ["### Half of the counts from the other half", halves]
    return "\n\n".join(parts) + "\n"


def facts_text(facts: dict) -> str:
    """A sentence on what was evaluated."""
    text = f"Classical fits from {facts['starts']} starts."
    if facts["weights"] is not None:
        found = facts["weights"]
        flow = "with" if found["flow"] else "without"
        text += f" Weights `{found['file']}` (sha256 {found['sha256']}...), {found['latent']} latent coordinates, {flow} flow; "
        text += f"{found['starts']} starts; {facts['seconds_learned']:.0f} CPU s for the learned fits."
    return text


def summary_text(rows: Sequence[dict], facts: dict) -> str:
    """The summary for a terminal."""
    lines = [facts_text(facts)]
    for name, found in summaries(rows).items():
        lines.append(
            f"{name[:44]:44s} n {found['n']:2d}  <=best {found['at_or_below']:2d}  <=+2 {found['within_2']:2d}  "
            f"<=+5 {found['within_5']:2d}  median {found['median']:+7.2f}  worst {found['worst']:+8.1f} {found['worst_name']:24s} "
            f"<=one {found['one_component']:2d}  <pl {found['powerlaw']:2d}  AIC {found['aic']:2d}/{found['aic_2']:2d}  "
            + (f"half {found['half']}/{found['half_n']} {found['half_median']:+.1f}" if found["half_n"] else "")
        )
    for row in rows:
        if row["outside"] and "learned" in row:
            lines.append(
                f"apart: {row['name']:20s} best {row['best_value']:9.1f}  learned {row['learned']:9.1f}  {row['bins']} bins"
            )
    return "\n".join(lines)


def between(text: str, name: str, inner: str) -> str:
    """A page with the part between two markers replaced.

    Raises
    ------
    ValueError
        The page has no such markers.
    """
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no markers '{name}'")
    return pattern.sub(lambda _: f"{begin}\n\n{inner.strip()}\n\n{end}", text)


def _table(head: Sequence[str], lines: Sequence[Sequence]) -> str:
    rows = ["| " + " | ".join(map(str, cells)) + " |" for cells in (head, *lines)]
    return "\n".join([rows[0], "|" + "---|" * len(head), *rows[1:]])
