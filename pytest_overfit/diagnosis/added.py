"""Families of hypotheses that other packages add: what they do wrong is theirs, and the verdict stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_overfit.core.foreign import describe
from pytest_overfit.diagnosis.hypotheses import Family, Hypothesis
from pytest_overfit.diagnosis.symptoms import Symptoms


class Added:
    """One such family, to be called like any other."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._name = getattr(family, "__qualname__", None) or type(family).__qualname__
        #: what it raised, in words
        self.failure = ""
        #: what it returned in place of hypotheses, in words
        self.misuse = ""

    def __call__(self, symptoms: Symptoms) -> list[Hypothesis]:
        try:
            return self._checked(self._family(symptoms))
        except Exception as error:  # code of another package may fail in any way
            first = next(iter(str(error).splitlines()), "")
            self.failure = f"the family of hypotheses {self._name} was left out: {type(error).__name__}: {first}"
            return []

    def _checked(self, answered: Any) -> list[Hypothesis]:
        if not isinstance(answered, Iterable):
            self._refuse(describe(answered))
            return []
        found = list(answered)
        wrong = [each for each in found if not isinstance(each, Hypothesis)]
        if wrong:
            self._refuse(f"one with {describe(wrong[0])}")
        return [each for each in found if isinstance(each, Hypothesis)]

    def _refuse(self, got: str) -> None:
        self.misuse = (
            f"hook pytest_overfit_diagnosis_families: {self._name}: expected a list of Hypothesis, got {got}; return "
            "[Hypothesis(fault=..., family=..., what=..., cure=...)], and [] where nothing is suspected"
        )
