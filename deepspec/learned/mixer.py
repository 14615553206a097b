"""A mixer as the body of an encoder: patches of the energy grid that exchange what they saw (Tolstikhin et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepspec.learned.branch import perceptron
from deepspec.learned.encoder import CHANNELS, GLOBALS, EncoderConfig, start_quietly
from deepspec.learned.grids import DETECTOR_COUNT


class MixerBlock(nn.Module):
    """One perceptron across tokens, then one across the numbers of each token, each added to its input.

    Parameters
    ----------
    tokens, width : int
    token_hidden, channel_hidden : int
        Hidden units of the two perceptrons.
    """

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int):
        super().__init__()
        self.before_tokens, self.before_channels = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across_tokens = perceptron([tokens, token_hidden, tokens])
        self.across_channels = perceptron([width, channel_hidden, width])

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of shape (..., tokens, width), in and out."""
        x = x + self.across_tokens(self.before_tokens(x).transpose(-1, -2)).transpose(-1, -2)
        return x + self.across_channels(self.before_channels(x))


class MixerBody(nn.Module):
    """Patches of neighbouring bins as tokens, mixer blocks, and a perceptron on all tokens together.

    Tokens are joined, not averaged: which energy a token stands for matters.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.patch, tokens = config.patch, DETECTOR_COUNT // config.patch
        self.embed = nn.Linear(CHANNELS * config.patch + GLOBALS, config.width)
        sizes = (tokens, config.width, config.token_hidden, config.channel_hidden)
        self.blocks = nn.Sequential(*(MixerBlock(*sizes) for _ in range(config.blocks)))
        self.norm = nn.LayerNorm(config.width)
        self.head = perceptron([tokens * config.width, *config.widths, config.outputs])
        start_quietly(self.head[-1], config)

    def forward(self, channels: Tensor, whole: Tensor) -> Tensor:
        """Numbers of the distribution, shape (..., outputs)."""
        patches = channels.unflatten(-1, (-1, self.patch)).transpose(-3, -2).flatten(-2)
        everywhere = whole.unsqueeze(-2).expand(*patches.shape[:-1], GLOBALS)
        x = self.embed(torch.cat([patches, everywhere], dim=-1))
        return self.head(self.norm(self.blocks(x)).flatten(-2))
