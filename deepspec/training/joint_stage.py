"""Everything at once on noisy counts: alone it is the plain variational autoencoder, after the other stages a last polish."""

from __future__ import annotations

from typing import Any

import torch

from deepspec.learned.checkpoint import Weights
from deepspec.learned.decoder import ComposedDecoder, build_decoder
from deepspec.learned.modules import make_weights
from deepspec.training.elbo import NoisyLoss
from deepspec.training.encoder_stage import EncoderStage


class JointStage(EncoderStage):
    """Encoder and decoder together, from random weights or from those of the stages before.

    From random weights there is no prior but N(0,1): the Kullback-Leibler weight has to rise slowly (``beta``, ``beta_hold``,
    ``beta_full``), or latent coordinates collapse.
    """

    name = "joint"

    def networks(self) -> NoisyLoss:
        if self.previous is not None:
            return super().networks()
        torch.manual_seed(self.seed)
        decoder = ComposedDecoder(build_decoder(self.config.decoder))
        return NoisyLoss(self.fresh_encoder(decoder), decoder, self.settings, held=False)

    def weights(self, module: NoisyLoss, card: dict[str, Any]) -> Weights:
        if self.previous is not None:
            return super().weights(module, card)
        return make_weights(module.decoder.decoder, encoder=module.encoder, card=card)
