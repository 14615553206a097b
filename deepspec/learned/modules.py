"""Weights as torch modules, and torch modules as weights."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.errors import UserError
from deepspec.learned import decoder, flow, shifting
from deepspec.learned.checkpoint import AGAIN, Check, Section, Weights, read_weights
from deepspec.learned.decoder import ComposedDecoder, DecoderConfig, build_decoder
from deepspec.learned.flow import FlowConfig, build_flow
from deepspec.learned.grids import COUNT, ENERGY_WEIGHTS
from deepspec.learned.settings import Settings
from deepspec.learned.tabulated import same_spectra

PLACES = 8
"""Number of points at which spectra are compared."""


def constants() -> dict[str, float]:
    """Every number of the code on which the spectra of given weights depend."""
    return {
        "ceiling": decoder.CEILING,
        "margin": shifting.MARGIN,
        "tail": flow.TAIL,
        "smallest": flow.SMALLEST,
    }


# --- from weights to modules ----------------------------------------------------------------------------------------


def load_decoder(
    weights: Weights, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> ComposedDecoder:
    """The decoder with its flow, in evaluation mode, after its spectra were found to be the recorded ones.

    Raises
    ------
    UserError
        Weights of another architecture than their settings say, or other spectra than when they were written.
    """
    whole = _double(weights).eval()
    _compare(whole, weights)
    return whole.to(device=device, dtype=dtype)


def load_flow(
    weights: Weights, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> flow.Flow | None:
    """The flow alone; None where the weights have none."""
    if weights.flow is None:
        return None
    return filled(build_flow, FlowConfig, weights, "flow").eval().to(device=device, dtype=dtype)


def load_oracle(
    weights: Weights, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module | None:
    """The oracle encoder; None where the weights have none."""
    if weights.oracle is None:
        return None
    from deepspec.learned.oracle import OracleConfig, build_oracle

    return filled(build_oracle, OracleConfig, weights, "oracle").eval().to(device=device, dtype=dtype)


def load_encoder(
    weights: Weights, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module | None:
    """The encoder of observed spectra; None where the weights have none."""
    if weights.encoder is None:
        return None
    from deepspec.learned.encoder import EncoderConfig, build_encoder

    return filled(build_encoder, EncoderConfig, weights, "encoder").eval().to(device=device, dtype=dtype)


def filled(build, kind: type[Settings], weights: Weights, name: str) -> nn.Module:
    """The network that the settings of a section describe, with the section's weights.

    Raises
    ------
    UserError
        Names or shapes of the weights are not those of such a network.
    """
    section: Section = getattr(weights, name)
    with torch.random.fork_rng(devices=[]):  # networks draw their first weights, which is nobody's business here
        module = build(kind.from_dict(section.config, source=weights.path or name))
    given = {key: torch.from_numpy(np.array(array)) for key, array in section.arrays.items()}
    expected = module.state_dict()
    wrong = sorted(set(given) ^ set(expected)) or sorted(k for k in given if given[k].shape != expected[k].shape)
    if wrong:
        raise UserError(
            f"its {name} is of another architecture than its settings say ({wrong[0]} does not fit)",
            weights.path or None,
            AGAIN,
        )
    module.load_state_dict(given)
    return module


def _double(weights: Weights) -> ComposedDecoder:
    """Decoder and flow in float64, buffers too: those are rounded when a float32 module is converted."""
    inner = filled(build_decoder, DecoderConfig, weights, "decoder").double()
    inner.weights = torch.as_tensor(ENERGY_WEIGHTS)
    if hasattr(inner, "x"):
        margin = (len(inner.x) - COUNT) // 2
        inner.x = (torch.arange(-margin, COUNT + margin, dtype=torch.float64) + 0.5) * (2.0 / COUNT) - 1.0
        side = (torch.arange(shifting.MARGIN, dtype=torch.float64) + 0.5) / shifting.MARGIN
        side = 0.5 - 0.5 * torch.cos(torch.pi * side)
        inner.taper = torch.cat([side, torch.ones(COUNT, dtype=torch.float64), side.flip(0)])
    outer = None if weights.flow is None else filled(build_flow, FlowConfig, weights, "flow").double()
    if outer is not None and outer.config.latent != inner.latent:
        raise UserError(
            f"its flow has {outer.config.latent} coordinates and its decoder {inner.latent}",
            weights.path or None,
            AGAIN,
        )
    return ComposedDecoder(inner, outer)


def _compare(whole: ComposedDecoder, weights: Weights) -> None:
    if weights.check is None:
        return
    known = constants()
    for name in sorted(set(known) | set(weights.check.constants)):
        if weights.check.constants.get(name) != known.get(name):
            raise UserError(
                f"these weights were trained with {name} = {weights.check.constants.get(name)}, and this deepspec has {known.get(name)}",
                weights.path or None,
                "install the deepspec that made them, or train anew",
            )
    with torch.no_grad():
        shapes = whole(torch.from_numpy(weights.check.places)).numpy()
    same_spectra(shapes, weights)


# --- from modules to weights ----------------------------------------------------------------------------------------


def section(module: nn.Module, config: Settings | None = None) -> Section:
    """A network as plain data; `config` is the module's own unless given."""
    settings = module.config if config is None else config
    arrays = {
        name: value.detach().to("cpu", torch.float32).numpy().copy() for name, value in module.state_dict().items()
    }
    return Section(settings.as_dict(), arrays)


def make_weights(
    decoder: nn.Module,
    flow: nn.Module | None = None,
    oracle: nn.Module | None = None,
    encoder: nn.Module | None = None,
    card: dict | None = None,
) -> Weights:
    """Weights of these networks, each of which has its settings as ``config``."""
    parts = {"flow": flow, "oracle": oracle, "encoder": encoder}
    made = {name: section(module) for name, module in parts.items() if module is not None}
    return checked(Weights(section(decoder), **made, card=dict(card or {})))


def checked(weights: Weights) -> Weights:
    """`weights` with their spectra at a few fixed points recorded, as every file has them."""
    whole = _double(replace(weights, check=None)).eval()
    rng = np.random.default_rng(0)
    places = np.concatenate([np.zeros((1, whole.latent)), 1.5 * rng.standard_normal((PLACES - 1, whole.latent))])
    with torch.no_grad():
        shapes = whole(torch.from_numpy(places)).numpy()
    return replace(weights, check=Check(constants(), places, shapes))


# --- kept while a process lives -------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _decoder_at(path: str, changed: int) -> tuple[ComposedDecoder, tuple[Tensor, ...] | None]:
    whole = load_decoder(read_weights(path), dtype=torch.float64).requires_grad_(False)
    with torch.no_grad():
        return whole, whole.table()


def decoder_at(path: str | os.PathLike) -> tuple[ComposedDecoder, tuple[Tensor, ...] | None]:
    """The float64 decoder of a file and its templates on the grid, read once while the file stays the same."""
    return _decoder_at(os.fspath(path), os.stat(path).st_mtime_ns)
