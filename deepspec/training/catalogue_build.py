"""`deepspec dataset build`: from folders of spectra to one file, in parts that survive a kill."""

from __future__ import annotations

import csv
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deepspec import __version__
from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.io.catalogue_files import DetectionTable, read_detections
from deepspec.learned.grids import BAND
from deepspec.training.dataset_file import FORMAT, VERSION, open_dataset, read_rejected
from deepspec.training.dataset_parts import Parts
from deepspec.training.products import Matrices, Product, how_to_give, parse_matrices, walk
from deepspec.training.spectrum_rows import Rejected, Wanted, row_of

PART = 512
"""Spectra looked at between two parts; with PATIENCE, what a kill can cost."""
PATIENCE = 30.0
"""A part is written after this time at the latest [s]."""
WORTH_A_POOL = 200
"""Spectra below which one process is as quick as several."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes
    ----------
    path, log : str
        The catalogue, and the table of what was left out.
    kept, looked_at : int
        Spectra in the catalogue; spectra looked at this time.
    rejected : dict of reason to number
    missing : dict of matrix name to number
        Spectra left out because their matrix was not found.
    seconds : float
    bytes : int
    """

    path: str
    log: str
    kept: int
    looked_at: int
    rejected: dict[str, int]
    missing: dict[str, int]
    seconds: float
    bytes: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def build(
    folders: Sequence[str | Path],
    out: str | Path,
    rmf: Sequence[str | Path] = (),
    table: str | Path | None = None,
    min_counts: int = 200,
    sum_flag_below: int = 3,
    band: tuple[float, float] = BAND,
    resume: bool = False,
    clobber: bool = False,
    jobs: int | None = None,
    tell: Tell | None = None,
) -> Built:
    """Collect the spectra below `folders` into one file.

    Parameters
    ----------
    folders : sequence of str or Path
    out : str or Path
    rmf : sequence of str or Path
        Folders of canned matrices, and ``NAME=FILE`` with * and ? in NAME.
    table : str or Path, optional
        Catalogue of detections with OBS_ID, SRC_NUM, SUM_FLAG (and SRCID).
    min_counts : int
        Counts of the source region in the band, background included.
    sum_flag_below : int
        Detections of `table` with this SUM_FLAG or a worse one are left out.
    band : tuple of two floats [keV]
    resume, clobber : bool
        Go on with what is there, or begin anew.
    jobs : int, optional
        Processes; as many as there are processors if not given and it is worth it.
    tell : callable, optional
        Told (what, done, total) as it goes.

    Raises
    ------
    UserError
        No spectra, none acceptable, a setting that makes no sense, something in the way of `out`.
    """
    started = time.monotonic()
    wanted = Wanted(_at_least_one(min_counts, "--min-counts", "counts"), _band(band))
    if jobs is not None:
        _at_least_one(jobs, "--jobs", "processes")
    matrices = parse_matrices(rmf)
    detections = None if table is None else read_detections(table)
    products, twice = walk(folders)
    parts = Parts(Path(out), _settings(wanted, detections, sum_flag_below))
    parts.begin(resume, clobber)
    done = parts.done() if resume else set()
    todo = [product for product in products if product.name not in done]
    rejected = [(product.path, product.path, "twice", product.name) for product in twice]
    if todo:
        chosen, refused = _flagged(todo, detections, sum_flag_below)
        _collect(chosen, parts, wanted, matrices, rejected + refused, _jobs(jobs, len(chosen)), tell, len(done))
    kept, log_rows = _finish(parts, folders, bool(todo))
    log = Path(out).with_suffix(".rejected.csv")
    _write_log(log, log_rows)
    return Built(
        path=str(out),
        log=str(log),
        kept=kept,
        looked_at=len(todo),
        rejected=dict(Counter(row[2] for row in log_rows).most_common()),
        missing=dict(Counter(row[3] for row in log_rows if row[2] == "no matrix").most_common()),
        seconds=time.monotonic() - started,
        bytes=Path(out).stat().st_size,
    )


def _at_least_one(value: int, option: str, what: str) -> int:
    if value < 1:
        raise UserError(f"{value} is not a number of {what}", source=option, remedy="choose 1 or more")
    return int(value)


def _band(band: tuple[float, float]) -> tuple[float, float]:
    low, high = float(band[0]), float(band[1])
    if not (max(low, BAND[0]) < min(high, BAND[1])):
        raise UserError(
            f"{low:g}:{high:g} keV leaves nothing",
            source="--band",
            remedy=f"choose low:high within {BAND[0]:g}:{BAND[1]:g}",
        )
    return low, high


def _settings(wanted: Wanted, detections: DetectionTable | None, sum_flag_below: int) -> dict[str, object]:
    name = None if detections is None else Path(detections.path).name
    flag = None if detections is None else int(sum_flag_below)
    return {"min_counts": wanted.min_counts, "band": list(wanted.band), "table": name, "sum_flag_below": flag}


def _jobs(given: int | None, spectra: int) -> int:
    if given is not None:
        return given
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return processors if spectra >= WORTH_A_POOL else 1


def _flagged(
    products: Iterable[Product], detections: DetectionTable | None, below: int
) -> tuple[list[Product], list[tuple[str, ...]]]:
    """Products of good detections, named after their source; and the others."""
    if detections is None:
        return list(products), []
    chosen, refused = [], []
    for product in products:
        found = detections.find(product.obsid, product.number) if product.obsid else None
        if found is None:
            refused.append((product.name, product.path, "not in table", f"{product.obsid}/{product.number}"))
        elif found[0] >= below:
            refused.append((product.name, product.path, "flag", f"SUM_FLAG {found[0]}"))
        else:
            chosen.append(replace(product, source=f"SRCID {found[1]}") if found[1] else product)
    return chosen, refused


# --- one after another, or in several processes ---------------------------------------------------------------------


class _Work:
    """What a process does with a product."""

    def __init__(self, wanted: Wanted, matrices: Matrices, parts: Parts):
        self.wanted, self.matrices, self.parts = wanted, matrices, parts

    def __call__(self, product: Product) -> dict[str, object] | tuple[str, ...]:
        try:
            return row_of(product, self.wanted, self.matrices, self.parts.keep_matrix)
        except Rejected as why:
            return (product.name, product.path, why.reason, why.detail)


_WORK: list[_Work] = []


def _begin_process(work: _Work) -> None:
    """In a new process: remember the work, leave Ctrl-C to the first process, and end when that has ended."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _WORK[:] = [work]
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(product: Product) -> dict[str, object] | tuple[str, ...]:
    return _WORK[0](product)


def _results(products: Sequence[Product], work: _Work, jobs: int) -> Iterator[dict[str, object] | tuple[str, ...]]:
    """The outcome of each product, in order."""
    if jobs == 1:
        yield from map(work, products)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_process, initargs=(work,))
    try:
        waiting: deque = deque()
        for product in products:
            waiting.append(pool.submit(_work, product))
            # A few ahead of the slowest, not a catalogue of them
            if len(waiting) >= 16 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the build was ended from outside, perhaps for want of memory",
            source="--jobs",
            remedy="go on with --resume and fewer --jobs",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(
    products: Sequence[Product],
    parts: Parts,
    wanted: Wanted,
    matrices: Matrices,
    rejected: list[tuple[str, ...]],
    jobs: int,
    tell: Tell | None,
    before: int,
) -> None:
    """Look at every product and write parts as it goes; what was done is kept even if this is interrupted."""
    rows: list[dict[str, object]] = []
    total, since = before + len(products), time.monotonic()
    results = _results(products, _Work(wanted, matrices, parts), jobs)
    try:
        for number, result in enumerate(results, start=1):
            (rejected if isinstance(result, tuple) else rows).append(result)
            if len(rows) + len(rejected) >= PART or time.monotonic() - since > PATIENCE:
                parts.append(rows, rejected)
                rows, rejected, since = [], [], time.monotonic()
            if tell is not None:
                tell("spectra", before + number, total)
    finally:
        results.close()
        if rows or rejected:
            parts.append(rows, rejected)


# --- the end --------------------------------------------------------------------------------------------------------


def _finish(parts: Parts, folders: Sequence[str | Path], changed: bool) -> tuple[int, list[tuple[str, ...]]]:
    """Join the parts; number of spectra, and the table of what was left out."""
    if changed or not parts.target.is_file():
        _refuse_nothing(parts)
        origin = {"deepspec": __version__, "folders": [str(folder) for folder in folders]}
        parts.join(
            {**origin, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "format": f"{FORMAT} {VERSION}"}
        )
    else:
        parts.discard()
    with open_dataset(parts.target) as file:
        return len(file["spectra"]["counts"]), read_rejected(file)


def _refuse_nothing(parts: Parts) -> None:
    """Say why no spectrum is left, if none is."""
    reasons: Counter = Counter()
    details: dict[str, Counter] = {}
    for path in parts.files():
        with open_dataset(path) as file:
            if len(file["spectra"]["counts"]):
                return
            for _, _, reason, detail in read_rejected(file):
                reasons[reason] += 1
                details.setdefault(reason, Counter())[detail] += 1
    parts.discard()
    total = sum(reasons.values())
    if reasons["no matrix"]:
        names = [name for name, _ in details["no matrix"].most_common()]
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"none of the {total} spectra can be used: {reasons['no matrix']} have no response matrix "
            f"(RESPFILE {names[0]}{others})",
            source=parts.target,
            remedy=how_to_give(names[0]),
        )
    what = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    example = f" ({details['unreadable'].most_common(1)[0][0].rstrip('.')})" if reasons["unreadable"] else ""
    raise UserError(
        f"none of the {total} spectra is left: {what}{example}",
        source=parts.target,
        remedy="choose other limits or folders",
    )


def _write_log(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with write_beside(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "path", "reason", "detail"))
        writer.writerows(rows)
