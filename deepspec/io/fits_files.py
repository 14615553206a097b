"""FITS files opened whole, without a word on the terminal; every foreign exception becomes a sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepspec.errors import UserError

_GZIP = b"\x1f\x8b"
_FITS = b"SIMPLE  ="


class _Collect(logging.Handler):
    """Keeps what a library logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what Sherpa and astropy log and warn from the terminal; the list holds what was logged."""
    collect = _Collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its first import gives the logger a handler that prints, so it comes before the handlers are set aside
        import sherpa  # noqa: F401

        logger = logging.getLogger("sherpa")
        handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
        try:
            # Whoever has silenced Sherpa still wants its warnings to be acted on here
            logger.setLevel(logging.WARNING)
            logger.handlers, logger.propagate = [collect], False
            yield collect.messages
        finally:
            logger.setLevel(level)
            logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def foreign_errors(path: object, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a broken file into one sentence that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        # Some libraries explain themselves in a sentence, others with a bare name
        because = f" ({reason})" if " " in reason else ""
        raise UserError(
            f"cannot be read as {what}{because}",
            source=path,
            remedy="the file seems damaged or incomplete; fetch it again",
        ) from error


def existing(path: str | Path) -> Path:
    """The file itself, or the one with .gz at the end; a folder or nothing is refused."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError("is a folder, not a file", source=path, remedy="give the name of a file")
        for candidate in (path, path.with_name(path.name + ".gz")):
            if candidate.is_file():
                return candidate
    except (OSError, ValueError) as error:
        raise UserError("is not a file name", source=path, remedy="check the name") from error
    raise UserError("no such file", source=path, remedy="check the name and the folder")


def open_fits(path: str | Path):
    """Open a FITS file, gzipped or not whatever its name says, wholly in memory.

    Returns
    -------
    hdus : astropy.io.fits.HDUList
    hash : str
        SHA-256 of the file as it is on the disk.

    Raises
    ------
    UserError
        The file is missing, not FITS, or cut short.
    """
    try:
        content = path.read_bytes() if isinstance(path, Path) else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", source=path, remedy="check the file") from error
    digest = hashlib.sha256(content).hexdigest()
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError("is a damaged or incomplete gzip file", source=path, remedy="fetch it again") from error
    if not content:
        raise UserError("is an empty file", source=path, remedy="fetch it again")
    if not content.startswith(_FITS):
        raise UserError("is not a FITS file", source=path, remedy="give a PHA, ARF or RMF file")
    with quiet(), foreign_errors(path, "a FITS file"):
        from astropy.io import fits

        hdus = fits.open(io.BytesIO(content), lazy_load_hdus=False)
        _check_length(hdus, len(content), path)
    return hdus, digest


def _check_length(hdus, length: int, path: str | Path) -> None:
    """Refuse a file that ends before its last table does: its missing rows would be read as what follows in memory."""
    for hdu in hdus:
        end = hdu._data_offset + hdu.size
        if end > length:
            raise UserError(
                f"is cut short: {length} bytes where extension {hdu.name or 'PRIMARY'} ends at {end}",
                source=path,
                remedy="fetch it again",
            )


def text(header, key: str) -> str:
    """A keyword as stripped text; empty if absent or not text, or if it says NONE."""
    value = header.get(key)
    value = value.strip() if isinstance(value, str) else ""
    return "" if value.upper() in ("NONE", "") else value
