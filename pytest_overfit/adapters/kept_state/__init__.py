"""State that a forward pass leaves behind: found by what the first passes change, and put back around every reading.

Inside the model that is any attribute or buffer of a module; outside of it what its code names: globals, variables
around a function, attributes of a class, objects that two models share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from pytest_overfit.adapters.kept_state.memory import ArrayKind, Memories, Memory, same
from pytest_overfit.adapters.kept_state.places import Owner


class OwnerMemory:
    """The values of one owner as they were."""

    def __init__(self, owner: Owner, memories: Memories, names: frozenset[str] | None = None) -> None:
        #: names that may be put back; None: all
        self.owner, self.names = owner, names
        self._memories = {name: memories.of(value) for name, value in self._watched().items()}

    def _watched(self) -> dict[str, object]:
        values = self.owner.values()
        return {name: each for name, each in values.items() if self.names is None or name in self.names}

    def changed(self) -> frozenset[str]:
        """Names of what is new, gone, another object, or changed inside."""
        now, before = self._watched(), self._memories
        differ = {name for name in now.keys() | before.keys() if self._differs(name, now)}
        return frozenset(differ)

    def _differs(self, name: str, now: dict[str, object]) -> bool:
        before = self._memories.get(name)
        return before is None or name not in now or not same(before.value, now[name]) or before.changed()

    def drew(self) -> bool:
        """A random generator among them moved."""
        return any(each.drew() for each in self._memories.values())

    def put_back(self, names: frozenset[str] | None = None) -> None:
        """Make them what they were, objects and contents."""
        now = self._watched()
        for name in now.keys() | self._memories.keys():
            if names is None or name in names:
                self._put_one_back(name, name in now, now.get(name))

    def _put_one_back(self, name: str, is_there: bool, value: object) -> None:
        before = self._memories.get(name)
        if before is None:
            self.owner.remove(name)
            return
        if not is_there or value is not before.value:
            self.owner.assign(name, before.value)
        before.put_back()

    def holds(self, size: int, names: frozenset[str]) -> bool:
        """Something under one of these names has an axis of this length."""
        chosen: list[Memory] = [each for name, each in self._memories.items() if name in names]
        return any(size in each.sizes() for each in chosen)


class KeptState:
    """What the forward passes of one model, or of one loss, carry from call to call.

    What lies outside of it is left alone, unless it is seen to change answers, as logs do not. Then each of the models
    that share it gets its own, and between their passes it is what it was before.
    """

    def __init__(self, owners: Iterable[Owner], kinds: Sequence[ArrayKind] = ()) -> None:
        self._kinds = kinds
        memories = Memories(kinds)
        #: everything as it is at first, until the first passes are over
        self._first: list[OwnerMemory] | None = [OwnerMemory(each, memories) for each in owners]
        #: what the first passes changed, as it was before them, and its names
        self._fresh: dict[Owner, OwnerMemory] = {}
        self._found: dict[Owner, frozenset[str]] = {}
        #: the same outside, and how this model left it; None: it changes no answer
        self._suspects: dict[Owner, frozenset[str]] = {}
        self._mine: list[OwnerMemory] | None = None
        #: names that evaluation changes
        self._in_evaluation: dict[Owner, frozenset[str]] = {}
        #: a generator of the model's own is drawn from
        self.draws = False

    def always(self, chosen: Callable[[Owner], bool]) -> None:
        """Look at these owners whatever the first passes do."""
        for each in self._first or ():
            if chosen(each.owner):
                self._fresh[each.owner], self._found[each.owner] = each, frozenset()

    def settled(self, answers: Callable[[], object]) -> tuple[str, ...]:
        """The first passes are over: from now on only what they changed is looked at.

        State outside counts where two `answers` to one question differ; its names are returned.
        """
        self._first = None
        if not self._suspects or answers() == answers():
            return ()
        self._found |= self._suspects
        self._in_evaluation |= self._suspects
        self._mine = [self._fresh[owner] for owner in self._suspects]
        for owner, names in self._suspects.items():
            self._fresh[owner].put_back(names)
        named = [(owner, name) for owner, names in self._suspects.items() for name in sorted(names)]
        return tuple(owner.label(name) for owner, name in named)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, state outside of the model is as its last pass left it."""
        mine = self._mine
        if mine is None:
            yield
            return
        others = self._outside()
        for owner, each in zip(self._suspects, mine, strict=True):
            each.put_back(self._suspects[owner])
        self._mine = None  # within, there is nothing more to enter
        try:
            yield
        finally:
            self._mine = self._outside()
            for other in others:
                other.put_back()

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Inside is a whole training step: on the way out everything is as it was at first, outside too."""
        try:
            yield
        finally:
            for each in self._first or ():
                each.put_back(each.changed())

    def _outside(self) -> list[OwnerMemory]:
        memories = Memories(self._kinds)
        return [OwnerMemory(owner, memories, names) for owner, names in self._suspects.items()]

    @contextlib.contextmanager
    def kept(self, *, evaluating: bool = False, fresh: bool = False, rows: int | None = None) -> Iterator[None]:
        """Put back, on the way out, what is changed inside.

        `evaluating`: the pass inside is one in evaluation. `fresh`: what evaluation carries on begins as it was before
        the first pass; with `rows` only where it has one entry a row, because rows may be others inside.
        """
        with self.entered():
            before = self._remembered()
            if fresh:
                self._refresh(before, rows)
            try:
                yield
            finally:
                self._learn(before, evaluating)
                for each in before:
                    if self._first is None or not each.owner.outside:
                        each.put_back()

    def _remembered(self) -> list[OwnerMemory]:
        if self._first is not None:
            return self._first
        memories = Memories(self._kinds)
        return [OwnerMemory(owner, memories, names if owner.outside else None) for owner, names in self._found.items()]

    def _learn(self, before: Sequence[OwnerMemory], evaluating: bool) -> None:
        for owned in before if self._first is not None or evaluating else ():
            self.draws = self.draws or owned.drew()
            names = owned.changed()
            if names and self._first is not None:
                self._fresh[owned.owner] = owned
                _add(self._suspects if owned.owner.outside else self._found, owned.owner, names)
            if names and evaluating:
                _add(self._in_evaluation, owned.owner, names)

    def _refresh(self, now: Sequence[OwnerMemory], rows: int | None) -> None:
        for owned in now:
            names = self._in_evaluation.get(owned.owner, frozenset())
            if names and (rows is None or owned.holds(rows, names)):
                self._fresh[owned.owner].put_back(names)


def _add(found: dict[Owner, frozenset[str]], owner: Owner, names: frozenset[str]) -> None:
    found[owner] = found.get(owner, frozenset()) | names


def remark_on(names: Sequence[str]) -> str:
    """What a verdict says of state that does not belong to the model or its loss."""
    return f"keeps state between calls, put back around readings: {', '.join(names)}" if names else ""
