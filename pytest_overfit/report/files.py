"""Writing a file that others may read meanwhile: whole or not at all, and never in place of what is no plain file."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

#: what is opened by name here is a stream of this process, also where it leads to a plain file
_STREAMS = ("/dev/fd/", "/dev/std", "/proc/")


def is_stream(path: Path) -> bool:
    """A device, a named pipe, or a stream of this process: opened and written once, never replaced."""
    if os.path.abspath(path).startswith(_STREAMS):  # noqa: PTH100 - Path.resolve would follow the link to its end
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write to a stream, or replace a plain file: a run that is killed leaves the old one or the new one.

    A link's target is replaced, not the link; mode and, where that is allowed, owner of the old file are kept, and a
    new one has those that the user's umask gives. What is not valid Unicode is written as an escape of JSON and Python.
    Raises `OSError`.
    """
    data = text.encode("utf-8", errors="backslashreplace")
    if is_stream(path):
        _write_stream(path, data)
    else:
        _replace(Path(os.path.realpath(path)), data)


def _write_stream(path: Path, data: bytes) -> None:
    # a named pipe that nobody reads would wait for ever; appending keeps what a log that stdout leads to has so far
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0))
    try:
        if hasattr(os, "set_blocking"):
            os.set_blocking(handle, True)
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    with _new_beside(path) as temporary:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:  # noqa: PTH123
            file.write(data)
        with contextlib.suppress(OSError):  # there is none yet, or it is someone else's
            old = path.stat()
            temporary.chmod(stat.S_IMODE(old.st_mode))
            os.chown(temporary, old.st_uid, old.st_gid)
        temporary.replace(path)


@contextlib.contextmanager
def _new_beside(path: Path) -> Iterator[Path]:
    """A name in the same folder, cut to what fits; nothing of it is left after an exception or Ctrl-C."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_place(path: Path) -> None:
    """That writing can work, before it is needed; raises `OSError` with the reason as its text."""
    if path.is_dir():
        raise OSError("that is a folder; name a file in it")
    if is_stream(path) and path.exists():
        return
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder}; create it first")
    try:
        with _new_beside(path) as temporary:
            temporary = folder / temporary.name  # permissions alone do not tell
            temporary.touch()
            temporary.unlink()
    except OSError as error:
        raise OSError(f"cannot write there: {error.strerror}") from None
