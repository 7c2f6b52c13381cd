"""The allow-list: copies that are known and meant, each with its reason."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief, describe

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_PLACE = re.compile(r"([a-z]+):(\d+)")
_EXAMPLE = "write allow={'test:17': 'the reason'}, or a fingerprint from the report instead of the place"


@dataclasses.dataclass
class Allowed:
    """Places and fingerprints that are allowed, and which of them were met."""

    reasons: Mapping[str, str]
    used: set[str] = dataclasses.field(default_factory=set)

    def takes(self, split: str, row: int, fingerprint: str, other: str, place: int) -> bool:
        """True if this copy is allowed, by either of its places or by its fingerprint."""
        for key in (f"{split}:{row}", f"{other}:{place}", fingerprint):
            if key and key in self.reasons:
                self.used.add(key)
                return True
        return False

    def unused(self) -> list[str]:
        return sorted(set(self.reasons) - self.used)


def allowed_of(given: Any, splits: Iterable[str]) -> Allowed:
    """Read `allow=`; raises `CaseError` for a key that is neither place nor fingerprint, or without a reason."""
    entries = given.items() if isinstance(given, Mapping) else given
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise CaseError(f"allow= is {describe(given)}; expected a dict of places and reasons; {_EXAMPLE}")
    reasons: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, tuple) or len(entry) != 2:
            raise CaseError(f"allow= holds {describe(entry)} without a reason; {_EXAMPLE}")
        key, reason = entry
        place = _PLACE.fullmatch(str(key))
        if not _FINGERPRINT.fullmatch(str(key)) and (place is None or place[1] not in set(splits)):
            raise CaseError(
                f"allow= holds {brief(key)}, which is neither a place in {' or '.join(splits)} nor a fingerprint; "
                f"{_EXAMPLE}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise CaseError(f"allow={{{brief(key)}: {brief(reason)}}}; expected the reason in words; {_EXAMPLE}")
        reasons[str(key)] = reason
    return Allowed(reasons)
