"""deepspec: X-ray spectral fitting with exact gradients and a learned component."""

__version__ = "0.1.0"
