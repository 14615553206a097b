"""A stand-in for ``xspec_models_cxc``, of the shape that its documentation describes."""

import os
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

__version__ = "1.2.3"


class ModelType(Enum):
    Add = auto()
    Mul = auto()
    Con = auto()


class LanguageStyle(Enum):
    CppStyle8 = auto()
    CStyle8 = auto()
    F77Style4 = auto()
    F77Style8 = auto()


class ParamType(Enum):
    Default = auto()
    Switch = auto()
    Scale = auto()
    Periodic = auto()


@dataclass
class XSPECParameter:
    paramtype: ParamType
    name: str
    default: float
    units: str | None = None
    frozen: bool = False
    softmin: float | None = None
    softmax: float | None = None
    hardmin: float | None = None
    hardmax: float | None = None
    delta: float | None = None


@dataclass
class XSPECModel:
    modeltype: ModelType
    name: str
    funcname: str
    language: LanguageStyle
    elo: float
    ehi: float
    parameters: list
    use_errors: bool = False
    can_cache: bool = True


def _model(kind, name, language, *parameters):
    return XSPECModel(kind, name, name, language, 0.0, 1e20, list(parameters))


_column = XSPECParameter(ParamType.Default, "nH", 1.0, "10^22", False, 0.0, 1e5, 0.0, 1e6, 1e-3)
_info = {
    "Slope": _model(
        ModelType.Add,
        "Slope",
        LanguageStyle.CppStyle8,
        XSPECParameter(ParamType.Default, "PhoIndex", 1.0, None, False, -2.0, 9.0, -3.0, 10.0, 0.01),
    ),
    "wabs": _model(
        ModelType.Mul, "wabs", LanguageStyle.F77Style4, _column, XSPECParameter(ParamType.Switch, "method", 1.0)
    ),
    "double": _model(
        ModelType.Con,
        "double",
        LanguageStyle.CppStyle8,
        XSPECParameter(ParamType.Default, "factor", 2.0, None, False, 0.0, 10.0, 0.0, 10.0, 0.01),
    ),
    "broken": _model(
        ModelType.Add,
        "broken",
        LanguageStyle.CppStyle8,
        XSPECParameter(ParamType.Default, "kT", 1.0, "keV", False, 0.1, 10.0, 0.1, 10.0, 0.01),
    ),
}
_state = {"chatter": 10, "abundance": "angr", "cross_section": "vern", "cosmology": (0.0, 0.0, 0.0)}


def list_models(modeltype=None, language=None):
    return sorted(_info)


def info(model):
    return next(value for key, value in _info.items() if key.casefold() == model.casefold())


def _setting(name, *value):
    if not value:
        return _state[name]
    (_state[name],) = value
    return None


def chatter(*value):
    return _setting("chatter", *value)


def abundance(*value):
    return _setting("abundance", *value)


def cross_section(*value):
    return _setting("cross_section", *value)


def cosmology(**values):
    if not values:
        return dict(zip(("h0", "q0", "lambda0"), _state["cosmology"], strict=True))
    _state["cosmology"] = (values["h0"], values["q0"], values["lambda0"])
    return None


def _checked(pars, energies, out, kind):
    assert pars.dtype == energies.dtype == out.dtype == kind
    assert pars.flags.c_contiguous
    assert len(energies) == len(out) + 1 >= 3


def Slope(pars, energies, out):
    _checked(pars, energies, out, np.float64)
    out[:] = energies[:-1] ** -pars[0] * np.diff(energies)
    return out


def wabs(pars, energies, out):
    _checked(pars, energies, out, np.float32)
    out[:] = np.exp(-pars[0] / energies[:-1])
    return out


def double(pars, energies, model):
    _checked(pars, energies, model, np.float64)
    model *= pars[0]
    return model


def broken(pars, energies, out):
    os.abort()
