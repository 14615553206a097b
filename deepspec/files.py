"""Files written whole or not at all, and the hashes that name an input in a result."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepspec.errors import UserError

_BLOCK = 1 << 20


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, as a hexadecimal string.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", source=path) from error
    return digest.hexdigest()


def writing_failed(error: OSError, path: str | os.PathLike) -> UserError:
    """The sentence for a failed write: a full disk, a folder that may not be written to, or what the system says."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError("no space left on the disk", source=path, remedy="free some space or choose another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError("the folder may not be written to", source=path, remedy="choose another folder")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return UserError(
            "its folder does not exist", source=path, remedy=f"make it first: mkdir -p {Path(path).parent}"
        )
    return UserError(f"cannot be written ({error.strerror or error})", source=path, remedy="choose another name")


@contextmanager
def write_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`; move it there when the block ends well.

    The temporary name ends as `path` does, so writers that choose the format by the ending work.
    Whatever ends the block early (an error, Ctrl-C) leaves `path` as it was and no other file behind.

    Raises
    ------
    UserError
        The folder is missing or may not be written to, the disk is full, or `path` is a folder.

    Examples
    --------
    >>> with write_beside("result.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")
    """
    path = Path(path)
    if path.is_dir():
        raise UserError("is a folder, not a file", source=path, remedy="give the name of a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix="".join(path.suffixes[-2:]), dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise writing_failed(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        _keep_mode(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise writing_failed(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _keep_mode(path: Path, temporary: Path) -> None:
    """mkstemp makes files private; give the new one the mode of the old one, or the usual one."""
    if path.exists():
        mode = path.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.chmod(temporary, mode)
