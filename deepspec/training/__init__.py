"""How the learned component is made: populations, cameras, simulated observations, stages and one loop.

Nothing heavy is imported here; a fit never loads this room.
"""

from deepspec.registry import Registry

STAGES = Registry(
    "stage",
    {
        "decoder": "deepspec.training.decoder_stage:DecoderStage",
        "prior": "deepspec.training.prior_stage:PriorStage",
        "encoder": "deepspec.training.encoder_stage:EncoderStage",
        "joint": "deepspec.training.joint_stage:JointStage",
    },
)
"""Stage -> its class, in the order in which they are run."""
