"""deepspec: X-ray spectral fitting with exact gradients.

The public names are imported when they are first used, so ``import deepspec`` is quick::

    import deepspec
    fitted = deepspec.fit("obs.pha", "tbabs*powerlaw", notice=(0.4, 9))
    print(fitted)
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name -> where it lives.
_PUBLIC = {
    "fit": "deepspec.api:fit",
    "fake": "deepspec.api:fake",
    "train": "deepspec.training.recipe:train",
    "read": "deepspec.api:read",
    "components": "deepspec.api:components",
    "Fit": "deepspec.api:Fit",
    "Choices": "deepspec.choices:Choices",
    "Model": "deepspec.models.model:Model",
    "Observation": "deepspec.observation:Observation",
    "ParameterSet": "deepspec.parameters:ParameterSet",
    "Problem": "deepspec.problem:Problem",
    "FitResult": "deepspec.results:FitResult",
    "load_result": "deepspec.results:load_result",
    "plot_spectrum": "deepspec.plots:plot_spectrum",
    "plot_unfolded": "deepspec.plots:plot_unfolded",
    "plot_steppar": "deepspec.plots:plot_steppar",
    "UserError": "deepspec.errors:UserError",
    "DeepspecWarning": "deepspec.errors:DeepspecWarning",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deepspec' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
