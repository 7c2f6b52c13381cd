"""The message of an exception, without colours, lists of arguments and the places of a graph's nodes."""

from __future__ import annotations

import dataclasses
import re

from pytest_overfit.adapters.causes.table import Crash
from pytest_overfit.adapters.keras.errors import tidied

#: what TensorFlow puts before and after the sentence that matters
_NODE = re.compile(r"\{\{function_node .*?\}\}\s*|\s*\[Op:\w+\]|\s*name:\s*\Z")


@dataclasses.dataclass(frozen=True)
class Message(Crash):
    """A crash in Keras, whose message is read and nothing else: its frames are taken off the traceback."""

    @property
    def text(self) -> str:
        text = tidied(str(self.error))
        if text.startswith("Graph execution error"):
            text = "\n".join(_last_words(text))
        return _NODE.sub("", text).strip()


def _last_words(text: str) -> list[str]:
    """The lines of a graph's error that are not places: the sentence stands after them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    places = ("Graph execution error", "Detected at node", "File ", "[[", "(0)", "(1)", "Original stack trace")
    return [line for line in lines if not line.startswith(places)]
