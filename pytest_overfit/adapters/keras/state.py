"""What Keras and TensorFlow keep globally, and what a forward pass changes in a model: saved and put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from pytest_overfit.adapters.keras.layers import layers_of
from pytest_overfit.adapters.keras.pass_state import state_of

Restore = Callable[[], None]

#: attributes of Keras' global state that a run changes: seeds, the default dtype, counters for automatic names
_SEED, _GENERATOR, _NAMES = "global_random_seed", "global_seed_generator", "object_name_uids"
_ATTRIBUTES = (_SEED, _GENERATOR, _NAMES, "dtype_policy")

_MASK = 0xFFFFFFFF


def _global_state() -> Any:
    """Keras' own store of global attributes; private, and there is no public way to the seed or its generator.

    None where a future Keras has moved it: seeds are then set by the public function and not put back.
    """
    try:
        from keras.src.backend.common import global_state
    except ImportError:
        return None
    return global_state


def seed(seed: int) -> None:
    """Start Keras and TensorFlow from `seed`, leaving Python's and numpy's generators as the caller seeded them.

    TensorFlow is seeded only where it is loaded already: Keras' own function would import it.
    """
    state = _global_state()
    if state is None:
        restore = _python_generators()
        keras.utils.set_random_seed(seed & _MASK)
        restore()
        return
    state.set_global_attribute(_SEED, seed & _MASK)
    state.set_global_attribute(_GENERATOR, None)  # made again from Python's generator when it is needed
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not (_running and _seed_context(seed & _MASK)):
        tensorflow.random.set_seed(seed & _MASK)


#: not empty while a training goes on
_running: list[bool] = []


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Inside, `seed` leaves TensorFlow's compiled functions as they are.

    `tf.random.set_seed` throws their kernels away, which costs 0.1 s at the next call, and makes random operations in
    them, which remember where they were, begin again.
    """
    _running.append(True)
    try:
        yield
    finally:
        _running.pop()


def _eager_context() -> Any:
    """TensorFlow's, whose seeds have no public reader; None where TensorFlow is not loaded."""
    module = sys.modules.get("tensorflow.python.eager.context")
    return None if module is None else module.context()


def _seed_context(seed: int) -> bool:
    """What `tf.random.set_seed` does, without the kernels; False where a future TensorFlow keeps seeds elsewhere."""
    context = _eager_context()
    if context is None or not hasattr(context, "_rng") or not hasattr(context, "_seed"):
        return False
    context._seed = seed
    context._rng = random.Random(seed)
    return True


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Put back every global setting and generator of Keras and TensorFlow, also after an exception.

    Not covered: a TensorFlow random operation called eagerly with a seed of its own starts its sequence again,
    because `tf.random.set_seed` clears the cache of kernels that remember where it was.
    """
    with contextlib.ExitStack() as stack:
        for restore in (_settings(), _keras_attributes(), _tensorflow_generators()):
            stack.callback(restore)
        yield


def _settings() -> Restore:
    config = keras.config
    values = [
        (config.set_floatx, config.floatx()),
        (config.set_epsilon, config.epsilon()),
        (config.set_image_data_format, config.image_data_format()),
    ]
    tensorflow: Any = sys.modules.get("tensorflow")
    if hasattr(tensorflow, "config"):
        values.append((tensorflow.config.run_functions_eagerly, tensorflow.config.functions_run_eagerly()))

    def restore() -> None:
        for put_back, value in values:
            put_back(value)

    return restore


def _keras_attributes() -> Restore:
    state = _global_state()
    if state is None:
        return lambda: None
    saved = {name: state.get_global_attribute(name) for name in _ATTRIBUTES}
    names = dict(saved[_NAMES]) if saved[_NAMES] is not None else None
    generator = saved[_GENERATOR]
    position = None if generator is None else keras.ops.convert_to_numpy(generator.state).copy()

    def restore() -> None:
        for name, value in saved.items():
            state.set_global_attribute(name, value)
        if names is not None:
            saved[_NAMES].clear()
            saved[_NAMES].update(names)
        if generator is not None:
            generator.state.assign(position)

    return restore


def _tensorflow_generators() -> Restore:
    """The global seed, the generator of eager operations' seeds, and the global `tf.random.Generator`."""
    context = _eager_context()
    if context is None:
        return lambda: None
    first = getattr(context, "_seed", None)
    draws = context._rng.getstate() if hasattr(context, "_rng") else None
    ops: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    generator = getattr(ops, "global_generator", None)
    position = None if generator is None else generator.state.numpy().copy()

    def restore() -> None:
        context._seed = first
        if draws is not None:
            context._rng.setstate(draws)
        elif hasattr(context, "_rng"):
            del context._rng
        if ops is not None:
            ops.global_generator = generator
        if generator is not None:
            generator.state.assign(position)

    return restore


@contextlib.contextmanager
def series_begun_again() -> Iterator[None]:
    """Inside, random operations of TensorFlow begin their series anew, also those that remember where they were."""
    restore = _tensorflow_generators()
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)
    try:
        yield
    finally:
        restore()


def _torch_generator() -> Restore:
    """The generator that layers written with torch draw from, where torch is the backend."""
    if keras.backend.backend() != "torch":
        return lambda: None
    torch = sys.modules["torch"]
    position = torch.get_rng_state()
    return lambda: torch.set_rng_state(position)


def _python_generators() -> Restore:
    standard, legacy = random.getstate(), np.random.get_state()

    def restore() -> None:
        random.setstate(standard)
        np.random.set_state(legacy)

    return restore


@contextlib.contextmanager
def held(
    model: Any,
    *,
    weights: bool = False,
    other_noise: int | None = None,
    same_noise: bool = False,
    evaluating: bool = False,
    rows: int | None = None,
) -> Iterator[None]:
    """Put the model back as it was: moving statistics, seeds, recurrent states, metrics, and every generator.

    `weights` adds what an update changes. `other_noise` draws other random numbers inside than the next step will,
    a new series for each value: otherwise two equal calls of a layer that is never quiet would agree. `same_noise`
    draws the same ones each time, whatever steps were made between. `evaluating`: the pass inside is one in evaluation;
    `rows`: of other rows, so that what is kept for each row starts anew.
    """
    variables = [*model.non_trainable_variables, *model.metrics_variables, *_global_generator()]
    if weights:
        variables += [*model.trainable_variables, *getattr(model.optimizer, "variables", ())]
    with contextlib.ExitStack() as stack:
        for restore in (_python_generators(), _keras_generator(), _tensorflow_generators(), _torch_generator()):
            stack.callback(restore)
        stack.callback(restorer(variables))
        stack.callback(_recurrent(model))
        stack.enter_context(state_of(model).kept(evaluating=evaluating, fresh=rows is not None, rows=rows))
        if other_noise is not None:
            _draw_others(variables, other_noise)
        if same_noise:
            _draw_the_same(variables)
        yield


def restorer(variables: Iterable[Any]) -> Restore:
    """Keep the values of these variables; calling it puts them back."""
    distinct = {id(each): each for each in variables if str(each.dtype) != "string"}
    saved = [(each, keras.ops.copy(each.value)) for each in distinct.values()]

    def restore() -> None:
        for variable, value in saved:
            variable.assign(value)

    return restore


def _recurrent(model: Any) -> Restore:
    """States of recurrent layers that keep them from batch to batch, which Keras does not list as variables."""
    stateful = _stateful(model)
    restore = restorer([state for each in stateful for state in _states(each)])
    unborn = [each for each in stateful if not _states(each)]

    def back() -> None:
        restore()
        for state in [state for each in unborn for state in _states(each)]:
            state.assign(keras.ops.zeros_like(state))  # made inside, and zero is what they start from

    return back


def forget(model: Any) -> None:
    """Start recurrent layers that keep their state from zero, as at the start of training."""
    for layer in _stateful(model):
        for state in _states(layer):
            state.assign(keras.ops.zeros_like(state))


def _stateful(model: Any) -> list[Any]:
    return [each for each in layers_of(model) if getattr(each, "stateful", False) and hasattr(each, "states")]


def _states(layer: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(layer.states) if isinstance(each, keras.Variable)]


def _global_generator() -> list[Any]:
    state = _global_state()
    generator = None if state is None else state.get_global_attribute(_GENERATOR)
    return [] if generator is None else [generator.state]


def _keras_generator() -> Restore:
    """Forget a global seed generator that was made inside: its seed came from a generator that is put back."""
    state = _global_state()
    if state is None:
        return lambda: None
    generator = state.get_global_attribute(_GENERATOR)
    return lambda: state.set_global_attribute(_GENERATOR, generator)


def begin_again(model: Any) -> None:
    """What comes next draws the numbers that a pass under `held(same_noise=True)` draws."""
    _draw_the_same([*model.non_trainable_variables, *_global_generator()])


def _draw_the_same(variables: Iterable[Any]) -> None:
    generators = [each for each in variables if each.name == "seed_generator_state"]
    for number, each in enumerate(generators):
        each.assign(keras.ops.full_like(each, number))
    _seed_others(0)


def _draw_others(variables: Iterable[Any], noise: int) -> None:
    for each in variables:
        if each.name == "seed_generator_state":
            each.assign(keras.ops.add(each, keras.ops.cast(noise * 7919, each.dtype)))
    _seed_others(noise)


def _seed_others(noise: int) -> None:
    random.seed(noise)
    np.random.seed(noise & _MASK)
    if keras.backend.backend() == "torch":
        sys.modules["torch"].manual_seed(noise)
    context = _eager_context()
    if hasattr(context, "_rng"):
        context._rng.seed(noise)
