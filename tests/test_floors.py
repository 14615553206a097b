"""Imports point downwards: the table in docs/architecture.md against the imports in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"deepspec": "deepspec", "cli": "deepspec_cli", "sherpa_plugin": "sherpa_plugin"}


def rooms() -> dict[str, int]:
    """Module prefix -> floor, read from the table ("deepspec.models" -> 2)."""
    found, floor = {}, None
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 3 or cells[0] in {"floor", "---"}:
            continue
        if number := re.match(r"\d+", cells[0]):
            floor = int(number.group())
        for name in re.findall(r"`([a-z_]+(?:\.py|/))`", cells[1]):
            stem = name.removesuffix(".py").removesuffix("/")
            module = PACKAGES.get(stem, f"deepspec.{stem}")
            assert module not in found, f"docs/architecture.md has two rows for {name}"
            found[module] = floor
    return found


def modules() -> dict[str, Path]:
    """Every module of the packages by its installed name."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ROOMS = rooms()
MODULES = modules()


def room_of(module: str) -> str | None:
    """The longest prefix of `module` that has a row in the table."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in ROOMS:
            return name
    return None


def imported(module: str, path: Path) -> list[tuple[int, str]]:
    """(line, module) for each import of our own packages anywhere in the file, inside functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # The version is known to all; whatever else a package offers may be a module of a higher floor.
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names if alias.name != "__version__"]
    return [(line, name) for line, name in found if name.split(".")[0] in PACKAGES.values()]


def test_table_has_every_floor():
    assert ROOMS["deepspec.errors"] == 0
    assert ROOMS["deepspec.models"] == 2
    assert ROOMS["deepspec_cli"] == max(ROOMS.values())


@pytest.mark.parametrize("module", [name for name in MODULES if name != "deepspec"])
def test_imports_point_downwards(module):
    own = room_of(module)
    assert own is not None, f"{module} has no row in docs/architecture.md"
    upward = []
    for line, name in imported(module, MODULES[module]):
        room = room_of(name)
        # What `from deepspec import x` reaches beyond modules is the public surface, which the doors make.
        floor = max(ROOMS.values()) if room is None else ROOMS[room]
        if floor > ROOMS[own]:
            upward.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not upward, f"upward imports: {upward}"


def test_the_check_sees_an_upward_import(tmp_path):
    path = tmp_path / "spectrum.py"
    path.write_text("def late():\n    from deepspec.models.base import Grid\n    from deepspec import __version__\n")
    found = imported("deepspec.spectrum", path)
    assert [name for _, name in found] == ["deepspec.models.base.Grid"]
    assert ROOMS[room_of(found[0][1])] > ROOMS["deepspec.spectrum"]
