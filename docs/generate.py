"""Rewrites the generated parts of the documentation in place, so that they cannot drift from the code.

A generated part lies between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Without arguments the pages are
rewritten; ``--check`` only says which are out of date and exits with 1. `make docs` does the first, the tests do
the second. ``--outputs`` also runs the commands between ``<!-- begin run COMMAND -->`` and ``<!-- end run -->``, shows what
they print, and renews the pictures; the last digits may depend on the machine, so no test compares them.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def cell(text: str) -> str:
    """Text that is safe in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


# --- components ---


def summary(component) -> str:
    """First paragraph of the docstring, on one line."""
    return " ".join(inspect.getdoc(type(component)).split("\n\n")[0].split()).rstrip(".") + "."


def number(value: float) -> str:
    return "" if abs(value) >= 1e20 else f"{value:g}"


def parameter_row(parameter) -> list[str]:
    state = "switch" if parameter.switch else "frozen" if parameter.frozen else ""
    limits = [number(getattr(parameter, key)) for key in ("hard_min", "soft_min", "soft_max", "hard_max")]
    return [f"`{parameter.name}`", parameter.unit, number(parameter.default), *limits, state]


def prose(docstring: str) -> str:
    """A numpydoc docstring as plain Markdown: notes are kept, refusals become a sentence, the rest is in the table."""
    head, *rest = re.split(r"(?m)^([A-Z][A-Za-z ]+)\n-{3,}\n", docstring)
    parts = [head.strip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title == "Notes":
            parts.append(body.strip())
        elif title == "Raises":
            lines = [line.strip() for line in body.strip().splitlines() if line.startswith(" ")]
            parts.append(f"Refused: {' '.join(lines)}")
    return "\n\n".join(parts).replace("``", "`")


def component_section(component) -> str:
    """Docstring, source and parameters of one component."""
    parameters = [*component.parameters, *([component.norm] if component.kind.value == "additive" else [])]
    head = ["parameter", "unit", "default", "hard min", "min", "max", "hard max", ""]
    text = prose(inspect.getdoc(type(component)))
    parts = [f"### {component.name}", text, f"Source: {component.source}." if component.source else ""]
    return "\n\n".join([part for part in parts if part] + [table(head, [parameter_row(p) for p in parameters])])


def components() -> str:
    """Every native component, by kind."""
    from deepspec.catalogue import present
    from deepspec.models.base import Kind

    made = present()
    parts = []
    for kind in Kind:
        chosen = [component for component in made if component.kind is kind]
        links = ", ".join(f"[{c.name}](#{c.name.lower()})" for c in chosen)
        parts += [f"## {kind.value.capitalize()} components", links, *map(component_section, chosen)]
    return "\n\n".join(parts)


# --- commands ---


def option_row(option, context) -> list[str]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    meta = "" if option.is_flag else f" {option.make_metavar(context)}"
    default = option.get_help_extra(context).get("default", "").strip("()") if option.show_default else ""
    return [names + meta, option.help or "", f"`{default}`" if default else ""]


def command(name: str) -> str:
    """Usage, help text and options of one command."""
    import click

    from deepspec_cli.main import main

    top = click.Context(main, info_name="deepspec")
    found = main.get_command(top, name)
    context = click.Context(found, info_name=f"deepspec {name}")
    usage = " ".join([f"deepspec {name}", *found.collect_usage_pieces(context)])
    parts = [f"```text\n{usage}\n```"]
    if isinstance(found, click.Group):
        for sub in found.list_commands(context):
            inner = found.get_command(context, sub)
            below = click.Context(inner, info_name=f"deepspec {name} {sub}")
            parts.append(f"```text\n{' '.join([f'deepspec {name} {sub}', *inner.collect_usage_pieces(below)])}\n```")
            parts += [inspect.cleandoc(inner.help or ""), option_table(inner, below)]
        return "\n\n".join(parts)
    return "\n\n".join([*parts, option_table(found, context)])


def option_table(found, context) -> str:
    import click

    options = [p for p in found.params if isinstance(p, click.Option) and not p.hidden]
    if not options:
        return "No options."
    return table(["option", "meaning", "default"], [option_row(option, context) for option in options])


# --- settings of training ---


def described(kind: type) -> dict[str, str]:
    """What the docstring of a settings class says of each field, base classes included."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        text = inspect.cleandoc(vars(one).get("__doc__") or "")
        _, _, body = re.sub(r"(?m)^Parameters\n-+", "Attributes\n----------", text).partition(
            "Attributes\n----------\n"
        )
        for match in re.finditer(r"(?m)^([a-z][\w, ]*?)(?: : (.*))?$((?:\n    .*)*)", body.partition("\n\n")[0]):
            first = "" if match[2] in ("int", "float", "str", "bool", "tuple of int") else match[2] or ""
            said = " ".join(f"{first} {match[3]}".split())
            found |= {name.strip(): said for name in match[1].split(",")}
    return found


def training_settings() -> str:
    """Every section of a training configuration: names, defaults, meanings."""
    from deepspec.training.config import NETWORKS, SECTIONS, STAGE_SECTIONS, TrainConfig

    plain, parts = TrainConfig().as_dict(), []
    kinds = {**SECTIONS, **NETWORKS, **{f"stage.{name}": kind for name, kind in STAGE_SECTIONS.items()}}
    for name, kind in kinds.items():
        values = plain["stage"][name.removeprefix("stage.")] if name.startswith("stage.") else plain[name]
        meaning = described(kind)
        rows = [[f"`{key}`", f"`{value!r}`", meaning.get(key, "")] for key, value in values.items()]
        parts += [f"### [{name}]", table(["setting", "default", "meaning"], rows)]
    return "\n\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "components": components,
    "training settings": training_settings,
    **{
        f"command {name}": lambda name=name: command(name)
        for name in ("fit", "models", "info", "fake", "train", "dataset", "tables", "weights", "plot")
    },
}


def renewed(text: str) -> str:
    """A page with its generated parts made anew."""

    def make(match: re.Match) -> str:
        if match[1] not in PARTS:
            return match[0]  # filled in by the program that measured it
        return f"<!-- begin {match[1]} -->\n\n{PARTS[match[1]]()}\n\n<!-- end {match[1]} -->"

    return re.sub(r"<!-- begin ([a-z ]+) -->.*?<!-- end \1 -->", make, text, flags=re.DOTALL)


# --- what commands print ---

PICTURES = {"spectrum.png": "binary_a.png"}


def printed(command: str) -> str:
    """A console block with a command and what it printed."""
    from click.testing import CliRunner

    from deepspec_cli.main import main as deepspec

    result = CliRunner().invoke(deepspec, shlex.split(command)[1:], prog_name="deepspec", catch_exceptions=False)
    if result.exit_code:
        raise SystemExit(f"{command}\n{result.output}")
    lines = [line.rstrip() for line in result.stdout.strip("\n").splitlines()]
    return "\n".join(["```console", f"$ {command}", *lines, "```"])


def renew_outputs() -> None:
    """Run the commands that the pages show, in a folder beside a copy of the bundled observations."""
    begin = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(DOCS.parent / "data", folder / "data")
        os.chdir(folder)
        try:
            for page in [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]:
                text = re.sub(
                    r"<!-- begin run (.+?) -->.*?<!-- end run -->",
                    lambda m: f"<!-- begin run {m[1]} -->\n\n{printed(m[1])}\n\n<!-- end run -->",
                    page.read_text(),
                    flags=re.DOTALL,
                )
                if text != page.read_text():
                    page.write_text(text)
            for made, kept in PICTURES.items():
                shutil.copyfile(folder / "demo-output" / made, DOCS / "images" / kept)
        finally:
            os.chdir(begin)


def main(arguments: list[str]) -> int:
    if arguments == ["--outputs"]:
        renew_outputs()
    stale = [
        page
        for page in sorted(DOCS.rglob("*.md"))
        if "_build" not in page.parts and renewed(page.read_text()) != page.read_text()
    ]
    if arguments == ["--check"]:
        for page in stale:
            print(f"{page.relative_to(DOCS.parent)} is out of date; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for page in stale:
        page.write_text(renewed(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
