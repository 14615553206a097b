"""The table of classes in the documentation: ``python -m deepspec.training.populations.page docs/populations.md``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deepspec.files import write_beside
from deepspec.training.populations import POPULATIONS

START, END = "<!-- classes: made by populations/page.py -->\n", "<!-- end of classes -->\n"


def classes() -> str:
    """Every class in Markdown: share, what it stands for, a row per parameter."""
    parts = []
    for name, kind in POPULATIONS.items():
        rows = [
            f"| {p} | {prior}{f', {prior.size} of them' if prior.size > 1 else ''} |"
            for p, prior in kind.priors.items()
        ]
        head = f"### {name}\n\n{(kind.__doc__ or '').strip()} Share {100 * kind.share:.0f} %. {kind.why}."
        parts.append("\n".join((head, "", "| parameter | prior |", "|---|---|", *rows)))
    return "\n" + "\n\n".join(parts) + "\n\n"


def with_classes(page: str) -> str:
    """The page with the part between its two marks made anew."""
    before, rest = page.split(START)
    return before + START + classes() + END + rest.split(END)[1]


def main(arguments: Sequence[str]) -> None:
    """Rewrite the page named on the command line."""
    path = Path(arguments[0])
    text = with_classes(path.read_text(encoding="utf-8"))
    with write_beside(path) as draft:
        Path(draft).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
