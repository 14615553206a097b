"""What a user chooses for a fit: checked, written as text that can be typed again, saved with every result."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from deepspec.errors import UserError
from deepspec.registry import did_you_mean

#: What may be done to a parameter, in the order in which one command line does it.
ACTIONS = ("limits", "set", "fix", "thaw", "link", "prior")
ERRORS = ("covariance", "profile", "none")
#: All starts are one batch, which must fit into memory.
MOST_STARTS = 1000
_NUMBERED = re.compile(r"^(\d+)=(.*)$")


@dataclass(frozen=True)
class Choices:
    """Everything that decides the outcome of a fit; the field names are those of the options of `deepspec fit`.

    Texts are kept as typed: ranges as "LO:HI" in keV (an open end is left out), and "N=..." where something
    concerns the N-th file only.

    Attributes
    ----------
    files : PHA files; relative names start at `folder`.
    actions : (verb, parameter, argument) in the order in which they are applied; verbs are `ACTIONS`.
    arf, rmf, bkg : one per file, in order, or "N=FILE"; "none" for none.
    """

    files: tuple[str, ...] = ()
    model: str = ""
    notice: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rule: tuple[str, ...] = ("touching",)
    group: tuple[str, ...] = ("auto",)
    stat: str = "auto"
    arf: tuple[str, ...] = ()
    rmf: tuple[str, ...] = ()
    bkg: tuple[str, ...] = ()
    rmf_dir: str | None = None
    row: int | None = None
    use_errors: bool = False
    actions: tuple[tuple[str, str, str], ...] = ()
    crosscal: bool = False
    engine: str = "maximum"
    starts: int = 16
    seed: int = 0
    errors: str = "covariance"
    delta: float = 1.0
    steppar: tuple[str, ...] = ()
    flux: tuple[str, ...] = ("0.5:2", "2:10")
    redshift: float | None = None
    goodness: int = 0
    abund: str = "wilm"
    folder: str = ""

    def __post_init__(self) -> None:
        for name, least in (("starts", 1), ("goodness", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name)} is too small", f"--{name}", f"give {least} or more")
        if self.starts > MOST_STARTS:
            raise UserError(f"{self.starts} starts are too many", "--starts", f"give at most {MOST_STARTS}")
        if self.errors not in ERRORS:
            raise UserError(f"unknown kind of errors '{self.errors}'", "--errors", did_you_mean(self.errors, ERRORS))
        if self.redshift is not None and not 0 < self.redshift < 100:
            raise UserError(
                f"a redshift of {self.redshift:g} gives no luminosity", "--redshift", "give a number above 0"
            )
        if not 0 < self.delta < float("inf"):
            raise UserError(f"a rise of {self.delta:g} gives no interval", "--delta", "give 1 for 68 %, 2.706 for 90 %")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for result.json."""
        return asdict(self)

    def path(self, name: str) -> str:
        """A file name of these choices as it can be opened from here: relative to `folder` if it lies there."""
        if os.path.isabs(name) or not self.folder or self.folder == os.getcwd():
            return name
        there = os.path.join(self.folder, name)
        return there if os.path.exists(re.sub(r"\{\d+\}$", "", there)) else name


def make_choices(base: Choices | None = None, **given: Any) -> Choices:
    """Choices from keywords, on top of those of an earlier fit.

    Parameters
    ----------
    base : Choices, optional
        What holds unless given.
    **given
        Fields of `Choices`; besides ``set``, ``fix``, ``thaw``, ``limits``, ``link``, ``prior`` as mappings, sequences or texts
        ("nH=0.3"). None means not given.

    Raises
    ------
    UserError
        A value that makes no sense.
    TypeError
        An unknown keyword.

    Examples
    --------
    >>> make_choices(notice=(0.4, 9), fix={"nH": 0.02}).notice
    ('0.4:9.0',)
    """
    base = base or Choices()
    known = {f.name for f in fields(Choices)}
    actions = list(base.actions)
    for verb in ACTIONS:
        actions += _actions(verb, given.pop(verb, None))
    unknown = set(given) - known
    if unknown:
        raise TypeError(
            f"unknown keyword {sorted(unknown)[0]}; {did_you_mean(sorted(unknown)[0], known | set(ACTIONS))}"
        )
    changes = {name: _as_field(name, value) for name, value in given.items() if value is not None}
    if "files" in changes:
        changes["folder"] = os.getcwd()
    return replace(base, **changes, actions=tuple(actions))


def _as_field(name: str, value: Any) -> Any:
    if name in ("notice", "ignore", "flux"):
        return tuple(_range_text(v) for v in _listed(value))
    if name in ("files", "rule", "group", "arf", "rmf", "bkg", "steppar"):
        return tuple(str(v) for v in ([value] if isinstance(value, str | os.PathLike) else value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _listed(value: Any) -> Sequence:
    """One range or several: "0.4:9", (0.4, 9), [(0.4, 2), (3, 9)]."""
    pair = (
        isinstance(value, Sequence) and len(value) == 2 and all(v is None or isinstance(v, int | float) for v in value)
    )
    return [value] if isinstance(value, str) or pair else list(value)


def _range_text(value: Any) -> str:
    return value if isinstance(value, str) else ":".join("" if v is None else repr(float(v)) for v in value)


def _actions(verb: str, given: Any) -> list[tuple[str, str, str]]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [(verb, str(name), _argument(verb, value)) for name, value in given.items()]
    texts = [given] if isinstance(given, str) else list(given)
    found = []
    for text in texts:
        name, equals, argument = str(text).partition("=")
        if not name.strip() or bool(equals) != bool(argument.strip()):
            raise UserError(f"'{text}' is not understood", f"--{verb}", f"write --{verb} {_FORMS[verb]}")
        if not equals and verb not in ("fix", "thaw"):
            raise UserError(f"'{text}' has no =", f"--{verb}", f"write --{verb} {_FORMS[verb]}")
        if equals and verb == "thaw":
            raise UserError(f"'{text}' sets a value", "--thaw", f"write --set {text} --thaw {name.strip()}")
        found.append((verb, name.strip(), argument.strip()))
    return found


_FORMS = {
    "limits": "PAR=LO:HI",
    "set": "PAR=VALUE",
    "fix": "PAR or PAR=VALUE",
    "thaw": "PAR",
    "link": '"PAR = expression"',
    "prior": '"PAR=normal(mean,sigma)"',
}


def _argument(verb: str, value: Any) -> str:
    if value is None or value is True:
        return ""
    if verb == "limits" and not isinstance(value, str):
        return _range_text(value)
    return value if isinstance(value, str) else repr(float(value))


def load_choices(path: str | Path) -> tuple[Choices, dict[str, str]]:
    """The choices saved in a result.json, and the hashes of its input files by name.

    Raises
    ------
    UserError
        Not a result of this program.
    """
    from deepspec.results import load_result

    result = load_result(path)
    config = dict(result.config)
    known = {f.name for f in fields(Choices)}
    if not config.get("files") or set(config) - known:
        raise UserError("this result does not say how it was made", path, "give the result.json of `deepspec fit`")
    config = {name: _tuples(value) for name, value in config.items()}
    if config.get("folder") and not Path(config["folder"]).is_dir():
        config["folder"] = str(Path(path).resolve().parent)
    hashes = {name: d.hash for name, d in zip(config["files"], result.data, strict=True)}
    return Choices(**config), hashes


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


# --- reading the texts ----------------------------------------------------------------------------------------------


@contextmanager
def option(text: str) -> Iterator[None]:
    """Name this option as the source of any mistake that does not say where it is."""
    try:
        yield
    except UserError as error:
        if error.source is not None:
            raise
        raise UserError(error.problem, text, error.remedy) from error


def number(text: str, source: str) -> float:
    """A number, or a sentence about `source`."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"'{text}' is not a number", source) from None


def energy_range(text: str, source: str) -> tuple[float | None, float | None]:
    """ "0.4:9" as (0.4, 9.0); an end left out is None.

    Raises
    ------
    UserError
        Not two numbers around a colon.
    """
    low, colon, high = text.partition(":")
    if not colon or not (low.strip() or high.strip()):
        raise UserError(f"'{text}' is not a range", source, "write LO:HI in keV, for example 0.5:7")
    ends = [number(part.strip(), source) if part.strip() else None for part in (low, high)]
    if None not in ends and not ends[0] < ends[1]:
        raise UserError(f"the range {text} is empty or reversed", source, "write LO:HI with LO below HI")
    return ends[0], ends[1]


def band(text: str, source: str = "--flux") -> tuple[float, float]:
    """A closed band of positive energies [keV]."""
    low, high = energy_range(text, source)
    if low is None or high is None or low <= 0 or high == float("inf"):
        raise UserError(f"'{text}' is not a band", source, "write LO:HI in keV, for example 2:10")
    return low, high


def for_file(texts: Sequence[str], index: int, count: int, source: str) -> list[str]:
    """What of `texts` concerns file number `index` (from 1) of `count`: unnumbered ones, and "N=..." of that number.

    Numbered texts stand in place of the unnumbered ones.
    """
    found: dict[int, list[str]] = {}
    for text in texts:
        match = _NUMBERED.match(text)
        place = int(match[1]) if match else 0
        if match and not 1 <= place <= count:
            raise UserError(f"there is no file {place}", f"{source} {text}", f"the files are numbered 1 to {count}")
        found.setdefault(place, []).append(match[2] if match else text)
    return found.get(index, found.get(0, []))


def paired(texts: Sequence[str], index: int, count: int, source: str, many: bool = False) -> list[str]:
    """Companion files of file `index`: given in the order of the spectra, or as "N=FILE".

    Parameters
    ----------
    many : bool
        A single spectrum may have several (backgrounds).
    """
    plain = [t for t in texts if not _NUMBERED.match(t)]
    numbered = for_file([t for t in texts if _NUMBERED.match(t)], index, count, source)
    if numbered or not plain:
        return numbered
    if count == 1:
        if len(plain) > 1 and not many:
            raise UserError(f"{len(plain)} files for one spectrum", source, "give one")
        return plain
    if len(plain) != count:
        raise UserError(
            f"{len(plain)} given for {count} spectra", source, f"give one per spectrum, or {source} N=FILE for file N"
        )
    return [plain[index - 1]]


def apply_actions(parameters, actions: Sequence[tuple[str, str, str]]):
    """A ParameterSet with `actions` done to it, and the priors among them by key.

    Raises
    ------
    UserError
        Unknown parameter, impossible value, circular link; it names the option.
    """
    from deepspec.priors import parse_prior

    limited: dict[str, tuple[float, float]] = {}
    priors = {}
    for verb, name, argument in actions:
        source = f"--{verb} {name}={argument}" if argument else f"--{verb} {name}"
        with option(source):
            key = parameters.key(name)
            if verb == "limits":
                limited[key] = band_of_parameter(argument, source)
                parameters = parameters.limit(key, *limited[key])
            elif verb in ("set", "fix"):
                if argument:
                    value = number(argument, source)
                    _within(value, key, limited)
                    parameters = parameters.set(key, value)
                parameters = parameters.freeze(key) if verb == "fix" else parameters
            elif verb == "thaw":
                parameters = parameters.thaw(key)
            elif verb == "link":
                parameters = parameters.link(key, argument)
            else:
                priors[key] = parse_prior(argument)
    return follow_links(parameters), priors


def band_of_parameter(text: str, source: str) -> tuple[float, float]:
    """Both limits of a parameter, "LO:HI"."""
    low, high = energy_range(text, source)
    if low is None or high is None:
        raise UserError(f"'{text}' leaves a limit out", source, "write PAR=LO:HI")
    return low, high


def _within(value: float, key: str, limited: Mapping[str, tuple[float, float]]) -> None:
    if key not in limited:
        return
    low, high = limited[key]
    if not low <= value <= high:
        raise UserError(f"the value {value:g} of {key} is outside the limits {low:g} to {high:g} given with --limits")


def follow_links(parameters):
    """The linked values brought up to date, and checked once at the starting point."""
    theta = parameters.vector()
    if not bool(parameters.check_links(theta)):
        values = parameters.expand(theta)
        for key in parameters.linked:
            limits, value = parameters[key].parameter, float(values[key])
            if not limits.hard_min <= value <= limits.hard_max:
                raise UserError(
                    f"the link puts {key} at {value:g}, outside its limits {limits.hard_min:g} to {limits.hard_max:g}",
                    f"--link {key}={parameters[key].link}",
                    "set starting values that keep it inside",
                )
    return parameters.with_vector(theta.tolist())
