"""What the benchmarks on simulated sources share: sources, weights, tables, pages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.learned.checkpoint import read_weights
from deepspec.learned.finding import find_weights
from deepspec.learned.modules import load_decoder
from deepspec.training.acceptance import View
from deepspec.training.cameras import camera
from deepspec.training.foreground import SIGMA, draw_log_nH
from deepspec.training.sources import CLASS_NAMES, held_out

__all__ = ["CLASS_NAMES", "Drawn", "decoder_of", "drawn", "into_page", "save", "seen_by", "table"]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Sources of the populations that no training has seen.

    Attributes
    ----------
    shape : Tensor, shape (n, 600), float64
        Photons per bin, unabsorbed, unit energy flux.
    label : Tensor, shape (n,)
        Positions in CLASS_NAMES.
    log_nH : Tensor, shape (n,), float64
        Foreground, log10 of 1e22 cm^-2.
    """

    shape: Tensor
    label: Tensor
    log_nH: Tensor


def drawn(count: int, seed: int) -> Drawn:
    """Held-out sources, and a foreground for each."""
    sources = held_out(count, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return Drawn(sources.shape.double(), sources.label, draw_log_nH(count, generator).double())


def seen_by(name: str = "pn", dtype: torch.dtype = torch.float64) -> View:
    """Foreground absorption and the camera of that name."""
    return View.of(camera(name).matrix, SIGMA, dtype)


def decoder_of(weights: str, flow: bool = True) -> nn.Module:
    """The decoder of a file of weights, or of weights known by name, with its flow unless `flow` is False."""
    whole = load_decoder(read_weights(find_weights(weights)))
    if not flow:
        whole.flow = None
    return whole


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def into_page(page: Path, name: str, text: str) -> None:
    """Put `text` between the markers ``<!-- NAME from here -->`` and ``<!-- NAME to here -->`` of a page.

    Raises
    ------
    UserError
        The page has no such markers.
    """
    begin, end = f"<!-- {name} from here -->", f"<!-- {name} to here -->"
    whole = page.read_text()
    if whole.count(begin) != 1 or whole.count(end) != 1:
        raise UserError(f"the markers '{begin}' and '{end}' are not there once each", source=page)
    before, after = whole.split(begin)[0], whole.split(end)[1]
    with write_beside(page) as temporary:
        temporary.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def save(path: Path, content: dict) -> None:
    """Write figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
