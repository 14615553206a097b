"""tbabs for Sherpa in numpy: what somebody without XSPEC would write, with the cross-sections kept between calls."""

from __future__ import annotations

import numpy as np
from sherpa.models.model import RegriddableModel1D, modelCacher1d
from sherpa.models.parameter import Parameter

from deepspec.resources import open_table


class Absorber(RegriddableModel1D):
    """``exp(-nH sigma(E))`` with deepspec's table of cross-sections, which is a mean over the two edges of a bin."""

    def __init__(self, name="absorber"):
        self.nH = Parameter(name, "nH", 1, 0, 1e5, 0, 1e6, "10^22")
        self._kept = {}
        with open_table("absorption.h5") as table:
            self._log_energy = np.log(table["tbabs/energy"][:])
            self._log_sigma = np.log(table["tbabs/tbabs/wilm"][:].astype(float).clip(1e-30))
        super().__init__(name, (self.nH,))

    def _sigma(self, low, high):
        key = (len(low), float(low[0]), float(high[-1]))
        if key not in self._kept:
            at = [np.exp(np.interp(np.log(x), self._log_energy, self._log_sigma)) for x in (low, high)]
            self._kept[key] = 0.5 * (at[0] + at[1])
        return self._kept[key]

    @modelCacher1d
    def calc(self, p, xlo, xhi=None, *args, **kwargs):
        """The factor per bin."""
        return np.exp(-p[0] * self._sigma(xlo, xhi))
