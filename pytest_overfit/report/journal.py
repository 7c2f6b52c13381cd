"""Verdicts that survive a kill: each is appended to a file beside the report as soon as it is there.

A run that ends as it should writes its report and takes the journal away. One that was killed leaves it, and the next
run that writes to the same report makes that report of it first. A lock that ends with its process tells whether the
run that a journal belongs to is still under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows no journal can be told to be abandoned, so none is kept
    fcntl = None  # type: ignore[assignment]


class Journal:
    """The journal of one run. A line that cannot be written is left out: the report at the end has its verdict."""

    def __init__(self, report: Path) -> None:
        self.path = report.with_name(f".{report.name[:100]}.{os.getpid()}.journal")
        self._handle: int | None = None

    def append(self, key: tuple[str, ...], form: Mapping[str, Any]) -> None:
        """One write, so that a kill leaves whole lines."""
        try:
            if self._handle is None:
                self._open()
            if self._handle is not None:
                line = json.dumps([key, form])
                os.write(self._handle, f"{line}\n".encode())
        except (OSError, ValueError, RecursionError):
            return

    def _open(self) -> None:
        if fcntl is not None:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self, keep: bool = False) -> None:
        """Take it away, unless it is all that there is of the run."""
        if self._handle is not None:
            if not keep:
                self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def abandoned(report: Path) -> Iterator[list[dict[str, Any]]]:
    """The verdicts and errors of each run that was killed before it wrote this report; its journal is taken away."""
    if fcntl is None:  # pragma: no cover
        return
    for path in sorted(report.parent.glob(f".{_literal(report.name[:100])}.*.journal"), key=_changed):
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                forms = _read(file.read())
                if forms and not (report.exists() and _changed(report) > _changed(path)):  # else a later run wrote it
                    yield forms
                path.unlink(missing_ok=True)
        except OSError:  # its run is under way, or it is not ours
            continue


def _read(data: bytes) -> list[dict[str, Any]]:
    """As the run itself would have kept them: a later attempt at a test replaces an earlier one."""
    kept: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in data.splitlines():
        try:
            key, form = json.loads(line)
            kept.pop(tuple(key), None)
            kept[tuple(key)] = dict(form)
        except (ValueError, TypeError):  # a disk that was full
            continue
    return list(kept.values())


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _literal(name: str) -> str:
    """A name with nothing in it that a pattern would take otherwise."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)
