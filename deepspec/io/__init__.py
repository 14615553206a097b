"""OGIP files in and out; the only room that knows FITS and ``sherpa.astro.io``."""

from deepspec.io.observations import read_observation
from deepspec.io.response_files import read_response
from deepspec.io.spectra import read_spectrum

__all__ = ["read_observation", "read_response", "read_spectrum"]
