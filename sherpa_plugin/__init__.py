"""deepspec in a Sherpa session: its native components as model types.

::

    from sherpa.astro import ui
    import sherpa_plugin
    sherpa_plugin.register()
    ui.set_source("dstbabs.gal * dspowerlaw.src")
"""

from __future__ import annotations

from typing import Any

__all__ = ["register"]


def register(session: Any = None) -> list[str]:
    """Make every native component known to a Sherpa session; see `sherpa_plugin.models.register`."""
    from sherpa_plugin.models import register as register_models

    return register_models(session)
