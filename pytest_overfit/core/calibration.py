"""Where the ends of bounds written as `calibrated` come from, as plain functions: probes know no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Where the ends of bounds come from that are written as `calibrated`."""

    #: measure them now; else they are read
    now: bool
    #: quantity -> what was measured, of a case; empty where there is no file; raises `CaseError` for one of no use
    read: Callable[[str], Mapping[str, Any]]
    #: the file of a case, for messages
    path: Callable[[str], str]
    #: the command that measures, for messages
    command: Callable[[], str]
