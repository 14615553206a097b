"""Trying a model out in a child process before it is ever called in the user's.

Without its data files one XSPEC model in three crashes, ends the process, leaves the output untouched or fills it with
zeros. A child loads the library once and forks for every model, so whatever happens costs only that fork.
Successes are remembered in a cache folder, failures only as long as the process lives.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.models.xspec.datafiles import HINTS, SILENT, missing_files
from deepspec.models.xspec.library import Library, Settings, flush, library
from deepspec.models.xspec.modeldat import Definition

TIMEOUT = 30.0
_TROUBLE = re.compile(r"error|unable|cannot|could not|failed|not found", re.IGNORECASE)
#: A model that prints more than this [bytes] is in trouble.
MOST_SAID = 2**22
#: Edges on which a model is tried [keV].
EDGES = np.geomspace(0.1, 20.0, 201)


@dataclass(frozen=True)
class Outcome:
    """What a model did when it was tried.

    Attributes
    ----------
    ok : bool
    what : str
        What happened, as a half-sentence ("crashes (segmentation fault)").
    said : str
        Last line of its output.
    loud : bool
        It prints at every call and not only at the first.
    seconds : float
        Time of two calls.
    """

    ok: bool
    what: str
    said: str = ""
    loud: bool = False
    seconds: float = 0.0


# In the child -----------------------------------------------------------------------------------------------------


def serve(reply) -> None:
    """Answer requests, one JSON document per line of standard input, until it ends.

    Parameters
    ----------
    reply : text file
        Where the answers go; standard output belongs to the models.
    """
    try:
        used = library()
        used.load(Settings())  # every fork has it then
    except UserError as error:
        print(json.dumps({"fatal": [error.problem, error.source, error.remedy]}), file=reply, flush=True)
        return
    for line in sys.stdin:
        request = json.loads(line)
        definition = used.definitions[request["name"].lower()]
        outcome = _in_a_fork(
            lambda talk, d=definition, r=request: _examine(used, d, r["parameters"], Settings(**r["settings"]), talk),
            request["timeout"],
        )
        if outcome.ok and _TROUBLE.search(outcome.said):
            outcome = replace(outcome, ok=False, what="reports an error and returns numbers all the same")
        print(json.dumps(asdict(outcome)), file=reply, flush=True)


def _examine(used: Library, definition: Definition, parameters: Sequence[float], settings: Settings, talk: int) -> dict:
    """Two calls and what is wrong with the result; runs in a fork that may die at any moment."""
    width = np.diff(EDGES)
    flux = EDGES[:-1] ** -1.8 * width if definition.kind == "con" else None
    call = (definition, EDGES, np.array(parameters), settings, flux, False)
    out = used.evaluate(*call)
    flush()
    before = os.fstat(talk).st_size
    used.evaluate(*call)
    flush()
    what = _verdict(out)
    if not what and definition.name in HINTS and flux is not None and np.allclose(out, flux):
        what = "returns its input unchanged"
    return {"what": what, "loud": os.fstat(talk).st_size > before}


def _verdict(out: np.ndarray) -> str:
    """Empty if the output is usable, else what is wrong with it."""
    missing = np.isnan(out)
    if missing.all():
        return "leaves its output untouched"
    if missing.any():
        return f"leaves {missing.mean():.0%} of its output untouched"
    if not np.isfinite(out).all():
        return "returns infinite values"
    return "" if out.any() else "returns zeros only"


def _in_a_fork(work: Callable[[int], dict], timeout: float) -> Outcome:
    """Run `work` in a fork; its death, its silence and its answer all become an outcome."""
    start = time.monotonic()
    read, write = os.pipe()
    with tempfile.TemporaryFile() as talk:
        child = os.fork()
        if child == 0:
            _work_and_leave(work, read, write, talk.fileno())
        os.close(write)
        answer = _read_until(read, start + timeout)
        seconds = time.monotonic() - start
        if answer is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        talk.seek(0)
        said = _last_line(talk.read().decode(errors="replace"))
    if answer is None:
        return Outcome(False, f"does not come back within {timeout:g} s", said, seconds=seconds)
    if not answer:
        return Outcome(False, _death(status), said, seconds=seconds)
    found = json.loads(answer)
    return Outcome(not found["what"], found["what"] or "ok", said, found.get("loud", False), seconds)


def _work_and_leave(work: Callable[[int], dict], read: int, write: int, talk: int) -> None:
    os.close(read)
    os.dup2(talk, 1)
    os.dup2(talk, 2)
    faulthandler.disable()  # a crash is expected here
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_SAID, MOST_SAID))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = work(talk)
    except BaseException as error:  # an exception of ours must not return into the parent's code
        found = {"what": f"cannot be called ({type(error).__name__}: {error})"}
    os.write(write, json.dumps(found).encode())
    os._exit(0)


def _read_until(descriptor: int, deadline: float) -> bytes | None:
    """Everything until the other end is closed, or None if that takes too long."""
    read = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            piece = os.read(descriptor, 65536)
            if not piece:
                return read
            read += piece
    finally:
        os.close(descriptor)


def _death(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"crashes ({signal.strsignal(-code).lower()})"
    return f"ends the process (exit status {code})"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if _TROUBLE.search(line)]
    return (told or lines or [""])[-1][:200]


# In the user's process --------------------------------------------------------------------------------------------

_SEEN: dict[str, Outcome] = {}


def cache_folder() -> Path:
    """Folder of remembered successes: DEEPSPEC_CACHE_DIR, else XDG_CACHE_HOME/deepspec, else ~/.cache/deepspec."""
    named = os.environ.get("DEEPSPEC_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "deepspec"


def _key(used: Library, definition: Definition, parameters: Sequence[float]) -> str:
    """What a success depends on; the time of the data folder's last change is part of it."""
    folder = used.data_folder
    try:
        changed = os.stat(folder).st_mtime_ns
    except OSError:
        changed = 0
    parts = [used.label, used.headas, folder, changed, definition.name, *parameters, sys.version_info[:2]]
    return hashlib.sha256(repr([str(part) for part in parts]).encode()).hexdigest()


def _recall(key: str) -> Outcome | None:
    if key not in _SEEN:
        with contextlib.suppress(OSError, ValueError, TypeError):
            _SEEN[key] = Outcome(**json.loads((cache_folder() / "xspec" / f"{key}.json").read_text()))
    return _SEEN.get(key)


def _remember(key: str, outcome: Outcome) -> None:
    _SEEN[key] = outcome
    if not outcome.ok:
        return
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to stop
        folder = cache_folder() / "xspec"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{key}.{os.getpid()}"
        beside.write_text(json.dumps(asdict(outcome)))
        beside.replace(folder / f"{key}.json")


def probe(
    definition: Definition,
    parameters: Sequence[float] | None = None,
    settings: Settings | None = None,
    timeout: float = TIMEOUT,
) -> Outcome:
    """What a model does at `parameters` (its defaults), tried in a child process unless that is known already.

    Raises
    ------
    UserError
        If the library itself cannot be loaded.
    """
    return probe_all([(definition, parameters)], settings, timeout)[0]


def probe_all(
    wanted: Sequence[tuple[Definition, Sequence[float] | None]],
    settings: Settings | None = None,
    timeout: float = TIMEOUT,
    told: Callable[[Definition, Outcome], None] = lambda definition, outcome: None,
) -> list[Outcome]:
    """`probe` of several models with one child process; `told` hears of each as it is done."""
    used, outcomes, child = library(), [], None
    try:
        for definition, given in wanted:
            parameters = [float(value) for value in (definition.defaults if given is None else given)]
            key = _key(used, definition, parameters)
            outcome = _recall(key)
            if definition.name.lower() in SILENT and missing_files(definition, parameters, used.data_folder):
                outcome = Outcome(False, "returns wrong numbers")
            elif outcome is None:
                child = child or _Child()
                outcome = child.ask(definition, parameters, settings or Settings(), timeout)
                _remember(key, outcome)
            told(definition, outcome)
            outcomes.append(outcome)
    finally:
        if child:
            child.close()
    return outcomes


class _Child:
    """The process that loads the library and forks."""

    def __init__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),  # it forks, so it has one thread
        }
        folder = environment.get("XSPEC_MDATA_DIR")
        if folder:
            environment["XSPEC_MDATA_DIR"] = os.path.abspath(folder) + "/"
        self.complaints = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "deepspec.models.xspec.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            cwd=tempfile.gettempdir(),  # some models leave a fort.49 where they run
        )

    def ask(self, definition: Definition, parameters: list[float], settings: Settings, timeout: float) -> Outcome:
        request = {"name": definition.name, "parameters": parameters, "settings": asdict(settings), "timeout": timeout}
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], timeout + 60.0)[0]
        line = self.process.stdout.readline() if ready else b""
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._lost() from None
        if "fatal" in answer:
            problem, source, remedy = answer["fatal"]
            raise UserError(problem, source, remedy)
        return Outcome(**answer)

    def _lost(self) -> UserError:
        self.complaints.seek(0)
        said = _last_line(self.complaints.read().decode(errors="replace"))
        return UserError(
            f"XSPEC's model library ended the process that loads it{f' ({said})' if said else ''}",
            source=library().headas,
            remedy="unset HEADAS to use the library of xspectrampoline, or let it point at HEASoft for this system",
        )

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.complaints.close()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
    from deepspec.models.xspec.probe import serve as _serve  # not the copy of this module called __main__

    _serve(answers)
