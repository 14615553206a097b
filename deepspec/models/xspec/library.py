"""Calling XSPEC's model library: which one is installed, its settings, and one locked call.

Two libraries are known, tried in this order: ``xspec_models_cxc`` (compiled against the user's own HEASoft) and
``xspectrampoline`` (brings HEASoft's models with it, without their data files; the extra ``deepspec[xspec]``). They are
imported when a model is first evaluated. No torch here: the child process of ``probe.py`` reads this module too.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.models.xspec.modeldat import Definition, Entry, read_model_dat
from deepspec.registry import did_you_mean

REMEDY = "pip install deepspec[xspec]"
ABUNDANCES = ("angr", "aspl", "feld", "aneb", "grsa", "wilm", "lodd", "lpgp", "lpgs", "felc")
CROSS_SECTIONS = ("vern", "bcmc", "obcm")

#: Abundances, cross-sections and saved Fortran variables belong to the process, so one call at a time.
LOCK = threading.RLock()


@dataclass(frozen=True)
class Settings:
    """The state of XSPEC's library that changes what its models return.

    Parameters
    ----------
    abundances : str
        XSPEC's ``abund``; wilm is Wilms, Allen & McCray (2000).
    cross_sections : str
        XSPEC's ``xsect``; vern is Verner et al. (1996).
    H0, q0, lambda0 : float
        XSPEC's ``cosmo``; H0 in km/s/Mpc. The library itself starts with zeros.
    """

    abundances: str = "wilm"
    cross_sections: str = "vern"
    H0: float = 70.0
    q0: float = 0.0
    lambda0: float = 0.73

    def __post_init__(self):
        for value, known, what in (
            (self.abundances, ABUNDANCES, "abundance table"),
            (self.cross_sections, CROSS_SECTIONS, "cross-section table"),
        ):
            if value not in known:
                raise UserError(f"XSPEC has no {what} '{value}'", remedy=did_you_mean(value, known))


class Library(abc.ABC):
    """One installed model library. Subclasses say where it is and how it is called."""

    name: str

    def __init__(self):
        self._settings: Settings | None = None
        self._data: str | None = None
        self._started = False
        self._heard: set[tuple] = set()
        self._environment = os.environ.get("HEADAS")

    def fits_environment(self) -> bool:
        """HEADAS is as it was, or the library is loaded already, and then HEADAS comes too late."""
        return self._started or self._environment == os.environ.get("HEADAS")

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Models by lower-case name; reading them does not load the library."""
        return {name.lower(): definition for name, definition in self._read().items()}

    @property
    def label(self) -> str:
        """Name and version, as recorded in results."""
        return f"{self.name} {self.version}"

    @property
    def version(self) -> str:
        """Version of the Python package."""
        try:
            return importlib.metadata.version(self.name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    @property
    def headas(self) -> Path | None:
        """Folder of the HEASoft installation in use."""
        return Path(os.environ["HEADAS"]).resolve() if os.environ.get("HEADAS") else None

    @property
    def data_folder(self) -> str:
        """Where the models look for their data files; ends in a slash, which XSPEC needs."""
        named = os.environ.get("XSPEC_MDATA_DIR")
        if named:
            return named.rstrip("/") + "/"
        places = (
            [self.headas / ".." / "spectral" / "modelData", self.headas / "spectral" / "modelData"]
            if self.headas
            else []
        )
        found = next((place for place in places if place.is_dir()), places[-1] if places else Path("modelData"))
        return os.path.normpath(found) + "/"

    def evaluate(
        self,
        definition: Definition,
        edges: np.ndarray,
        parameters: np.ndarray,
        settings: Settings,
        flux=None,
        hush=None,
    ) -> np.ndarray:
        """One call of one model.

        Parameters
        ----------
        definition : Definition
        edges : ndarray, shape (n + 1,) [keV]
        parameters : ndarray, shape (number of parameters,)
        settings : Settings
        flux : ndarray, shape (n,), optional
            The argument of a convolution.
        hush : bool, optional
            Catch what the model prints: always, never, or (None) at its first call only.

        Returns
        -------
        ndarray, shape (n,), float64
            NaN wherever the model wrote nothing.

        Raises
        ------
        UserError
            If the library cannot be loaded.
        ValueError
            If lengths do not match.
        """
        if len(parameters) != len(definition.entries):
            raise ValueError(f"{definition.name} has {len(definition.entries)} parameters, not {len(parameters)}")
        if flux is not None and len(flux) != len(edges) - 1:
            raise ValueError(f"{len(flux)} fluxes do not belong to {len(edges)} edges")
        kind = np.float32 if definition.single else np.float64
        bins = len(edges) - 1
        if bins == 1:  # the libraries ask for two bins or more
            edges = np.append(edges, edges[-1] + (edges[-1] - edges[0]))
            flux = None if flux is None else np.append(flux, 0.0)
        edges, parameters = np.array(edges, kind), np.array(parameters, kind)
        out = np.full(len(edges) - 1, np.nan, kind) if flux is None else np.array(flux, kind)
        key = (definition.name, *(parameters[i] for i in definition.switches))
        hush = key not in self._heard if hush is None else hush
        with LOCK, quiet() if hush else contextlib.nullcontext():
            self._ready(settings)
            out = self._call(definition, edges, parameters, out)
            self._heard.add(key)
        return np.asarray(out, np.float64)[:bins]

    def load(self, settings: Settings) -> None:
        """Load the library and give it these settings.

        Raises
        ------
        UserError
            If it cannot be loaded.
        """
        with LOCK:
            self._ready(settings)

    def _ready(self, settings: Settings) -> None:
        """Load at first use; follow XSPEC_MDATA_DIR and the settings of this call."""
        folder = os.environ.get("XSPEC_MDATA_DIR")
        if folder and not folder.endswith("/"):  # file names are glued to it
            folder = os.environ["XSPEC_MDATA_DIR"] = folder + "/"
        if self._started and folder == self._data and settings == self._settings:
            return
        with quiet():
            if not self._started:
                self._start()
            elif folder != self._data:
                self._restart()
            self._started, self._data, self._settings = True, folder, None
            self._set(settings)
            self._settings = settings

    @abc.abstractmethod
    def _read(self) -> Mapping[str, Definition]:
        """Every model that the library has, from its own model.dat."""

    @abc.abstractmethod
    def _start(self) -> None:
        """Load the library, with the environment as it is."""

    @abc.abstractmethod
    def _restart(self) -> None:
        """Follow a change of XSPEC_MDATA_DIR."""

    @abc.abstractmethod
    def _set(self, settings: Settings) -> None:
        """Abundances, cross-sections and cosmology."""

    @abc.abstractmethod
    def _call(self, definition: Definition, edges, parameters, out) -> np.ndarray:
        """Fill `out` with one evaluation and return it."""


class Trampoline(Library):
    """``xspectrampoline``: HEASoft's shared libraries through ctypes."""

    name = "xspectrampoline"

    @property
    def headas(self) -> Path | None:
        """HEADAS, else the installation inside the package."""
        if os.environ.get("HEADAS"):
            return super().headas
        spec = importlib.util.find_spec(self.name)
        places = [
            place for folder in spec.submodule_search_locations or [] for place in Path(folder).glob("LibXSPEC_*")
        ]
        return places[0].resolve() if places else None

    def _read(self) -> Mapping[str, Definition]:
        if self.headas is None:
            raise UserError("xspectrampoline has no model library inside", remedy=f"install it again: {REMEDY}")
        places = [self.headas / "spectral", self.headas / ".." / "spectral"]
        files = [place / "manager" / "model.dat" for place in places]
        return read_model_dat(next((file for file in files if file.is_file()), files[0]))

    def _start(self) -> None:
        logging.getLogger("xspectrampoline").setLevel(logging.CRITICAL)
        root = logging.getLogger()
        disabled, root.disabled = root.disabled, True  # it logs a traceback on the root logger, then raises
        try:
            xspectrampoline = importlib.import_module(self.name)
        except Exception as error:
            raise UserError(
                f"XSPEC's model library cannot be loaded from {self.headas}",
                remedy="unset HEADAS to use xspectrampoline's own, or let it point at HEASoft for this system",
            ) from error
        finally:
            root.disabled = disabled
        self._libraries = xspectrampoline.get_libraries()
        functions = self._functions = self._libraries.lib_xs_functions
        for name in ("FPSOLR", "FPXSCT"):
            getattr(functions, name).argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
            getattr(functions, name).restype = None
        functions.FPCHAT.argtypes = [ctypes.c_int]
        functions.csmpall.argtypes = [ctypes.c_float] * 3
        functions.FPCHAT(0)

    def _restart(self) -> None:
        self._functions.FNINIT()  # the only place where XSPEC_MDATA_DIR is read
        self._functions.FPCHAT(0)

    def _set(self, settings: Settings) -> None:
        for function, value in (("FPSOLR", settings.abundances), ("FPXSCT", settings.cross_sections)):
            failed = ctypes.c_int(0)
            getattr(self._functions, function)(value.encode(), ctypes.byref(failed))
            if failed.value:
                raise UserError(f"this XSPEC library has no table '{value}'", remedy=f"known: {', '.join(ABUNDANCES)}")
        self._functions.csmpall(settings.H0, settings.q0, settings.lambda0)

    def _call(self, definition: Definition, edges, parameters, out) -> np.ndarray:
        fortran = definition.symbol.endswith("_")
        function = self._libraries.get_model(definition.symbol, interface=None if fortran else "c")
        function(edges, parameters, out, np.zeros_like(out))
        return out


class ModelsCxc(Library):
    """``xspec_models_cxc``: ``module.<model>(pars, energies[, out])``, ``info``, ``list_models``."""

    name = "xspec_models_cxc"
    _KINDS = {"Add": "add", "Mul": "mul", "Con": "con"}

    @cached_property
    def _module(self):
        try:
            return importlib.import_module(self.name)
        except ImportError as error:
            raise UserError(
                f"xspec_models_cxc is installed but cannot be imported ({error})",
                remedy="build it again against this HEASoft, or remove it to use xspectrampoline",
            ) from error

    @property
    def version(self) -> str:
        """Version of the Python package."""
        return str(getattr(self._module, "__version__", "unknown"))

    def _read(self) -> Mapping[str, Definition]:
        models = {}
        for name in self._module.list_models():
            info = self._module.info(name)
            kind = self._KINDS.get(info.modeltype.name)
            if kind:
                entries = tuple(self._entry(parameter) for parameter in info.parameters)
                models[info.name] = Definition(info.name, kind, info.name, info.language.name == "F77Style4", entries)
        return models

    @staticmethod
    def _entry(parameter) -> Entry:
        limits = (parameter.hardmin, parameter.softmin, parameter.softmax, parameter.hardmax)
        switch = parameter.paramtype.name == "Switch"
        known = None if any(limit is None for limit in limits) else limits
        frozen = bool(parameter.frozen) or switch or parameter.paramtype.name == "Scale"
        return Entry(
            parameter.name, parameter.units or "", parameter.default, known, frozen, switch, parameter.delta or 0.01
        )

    def _start(self) -> None:
        if not self.headas:
            raise UserError(
                "xspec_models_cxc needs HEADAS",
                remedy="initialise HEASoft first: . $HEADAS/headas-init.sh in this shell",
            )
        self._module.chatter(0)

    def _restart(self) -> None:
        raise UserError(
            "XSPEC_MDATA_DIR was changed after xspec_models_cxc had started", remedy="set it before Python starts"
        )

    def _set(self, settings: Settings) -> None:
        self._module.abundance(settings.abundances)
        self._module.cross_section(settings.cross_sections)
        self._module.cosmology(h0=settings.H0, q0=settings.q0, lambda0=settings.lambda0)

    def _call(self, definition: Definition, edges, parameters, out) -> np.ndarray:
        # The third argument is written in place: `out` of most models, `model` of convolutions.
        return getattr(self._module, definition.name)(parameters, edges, out)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Catch what C and Fortran code prints on standard output and error; it goes to the debug log instead.

    The output of the whole process is caught meanwhile, so this is used round single calls only.
    """
    saved = {}
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
            stream.flush()
            saved[number] = os.dup(number)
    with tempfile.TemporaryFile() as caught:
        for number in saved:
            os.dup2(caught.fileno(), number)
        try:
            yield
        finally:
            flush()
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
            caught.seek(0)
            said = caught.read().decode(errors="replace").strip()
            if said:
                logging.getLogger("deepspec.xspec").debug("%s", said)


def flush() -> None:
    """Empty the buffers of C and, where its run-time library is loaded, of Fortran."""
    process = ctypes.CDLL(None)
    process.fflush(None)
    with contextlib.suppress(AttributeError):
        process._gfortran_flush_i4(None)


_LIBRARIES: dict[str, Library] = {}


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # imported from no file
        return name in sys.modules


def library() -> Library:
    """The model library in use: ``xspec_models_cxc`` when importable, else ``xspectrampoline``.

    Raises
    ------
    UserError
        If neither is installed.
    """
    for kind in (ModelsCxc, Trampoline):
        if _installed(kind.name):
            with LOCK:
                known = _LIBRARIES.get(kind.name)
                if known is None or not known.fits_environment():
                    known = _LIBRARIES[kind.name] = kind()
                return known
    raise UserError("XSPEC's models are not installed", remedy=REMEDY)


def describe(settings: Settings) -> dict[str, object]:
    """What a result records of the library and its state."""
    used = library()
    headas = used.headas
    return {
        "library": used.label,
        "HEADAS": str(headas) if headas else None,
        "data": used.data_folder,
        **asdict(settings),
    }
