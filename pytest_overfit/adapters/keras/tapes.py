"""What `tf.GradientTape.gradient` does, for a while: every gradient of a Keras step on TensorFlow goes through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def tapes_answering(gradient: Callable[..., Any]) -> Iterator[None]:
    """Inside, tapes answer with `gradient`; afterwards as before, which may be another one's answer."""
    before = tf.GradientTape.gradient
    tf.GradientTape.gradient = gradient
    try:
        yield
    finally:
        tf.GradientTape.gradient = before
