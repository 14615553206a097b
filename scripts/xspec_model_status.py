#!/usr/bin/env python3
"""Try every model of the XSPEC library in use and write the table of docs/xspec-models.md.

usage: nice python scripts/xspec_model_status.py [--check] [--timeout SECONDS]

Without data files (XSPEC_MDATA_DIR unset) the table says which file each model wants. `--check` writes nothing and ends
with status 1 if the table in the page differs. Times vary, so they are no part of the table.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from deepspec.models.xspec import Settings, library, probe
from deepspec.models.xspec.datafiles import HINTS, missing_files

PAGE = Path(__file__).resolve().parents[1] / "docs" / "xspec-models.md"
BEGIN, END = "<!-- begin: made by scripts/xspec_model_status.py -->", "<!-- end -->"
KINDS = {"add": "additive", "mul": "multiplicative", "con": "convolution"}


def tried(timeout: float) -> list[tuple]:
    """(definition, outcome) of every model that can be part of a spectrum."""
    definitions = [d for d in library.library().definitions.values() if d.kind in KINDS]
    wanted = [(definition, None) for definition in definitions]

    def told(definition, outcome):
        print(f"{definition.name:12s} {outcome.what}  ({outcome.seconds:.2f} s)", flush=True)

    return list(zip(definitions, probe.probe_all(wanted, Settings(), timeout, told), strict=True))


def row(definition, outcome, folder: str) -> str:
    """One line of the table."""
    missing = [] if outcome.ok else missing_files(definition, definition.defaults, folder)
    wants = ", ".join(f"`{file}`" for file in missing) or ("" if outcome.ok else HINTS.get(definition.name.lower(), ""))
    precision = 32 if definition.single else 64
    return f"| {definition.name} | {KINDS[definition.kind]} | {precision} | {outcome.what} | {wants} |"


def section(results: list[tuple]) -> str:
    """The text between the two marks of the page."""
    used = library.library()
    counts = Counter("ok" if outcome.ok else outcome.what for _, outcome in results)
    lines = [
        f"Library: {used.label}, {len(results)} models, each called at its default parameters without data files.",
        "",
        *(f"- {number}: {what}" for what, number in counts.most_common()),
        "",
        "| model | kind | bits | what it does | file it wants, or why |",
        "|---|---|---|---|---|",
        *(row(definition, outcome, used.data_folder) for definition, outcome in results),
    ]
    return "\n".join(lines)


def main() -> int:
    """Try, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the page instead of writing it")
    parser.add_argument("--timeout", type=float, default=probe.TIMEOUT, help="seconds for one model")
    options = parser.parse_args()
    before = PAGE.read_text()
    head, rest = before.split(BEGIN)
    tail = rest.split(END)[1]
    after = f"{head}{BEGIN}\n\n{section(tried(options.timeout))}\n\n{END}{tail}"
    if options.check:
        print("the table is as in the page" if after == before else "the table differs from the page")
        return int(after != before)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
