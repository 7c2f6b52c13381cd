"""What pytest shows of a test that one of our exceptions ended: no frame of ours, and in one line the reason."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

#: where frames come from that a user need not see; the latter is the `__init__` of a dataclass
_OURS = (str(Path(__file__).parents[1]) + os.sep, "<string>")


def hide_our_frames(item: Any, call: Any) -> bool:
    """Take our frames off a traceback; True if none of the user's is on it, so that the message is all there is."""
    if call.excinfo is None or item.config.getoption("fulltrace", False):
        return False
    entry, users = call.excinfo.tb, False
    while (following := entry.tb_next) is not None:
        name = following.tb_frame.f_code.co_filename
        users = users or name == str(item.path)
        if name.startswith(_OURS):
            entry.tb_next = following.tb_next
        else:
            entry = following
    return not users


def shorten(report: Any, call: Any, alone: bool) -> None:
    """Only the message, where it is all there is; its reason where pytest has one line and JUnit a `message`."""
    if alone:
        report.longrepr = call.excinfo.getrepr(style="value")
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = _reason(call.excinfo.value)


def _reason(error: Any) -> str:
    """As much as fits of it is shown: so no class, and no case, which the test's name has already."""
    verdict = getattr(error, "verdict", None)
    if verdict is None:
        return re.sub(r"^Case '[^']*': ", "", str(error).partition("\n")[0])
    return f"inconclusive: {verdict.summary}" if verdict.outcome == "inconclusive" else str(verdict.summary)
