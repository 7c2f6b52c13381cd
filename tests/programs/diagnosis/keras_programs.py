"""All Keras programs of this folder."""

from __future__ import annotations

from tests.programs.diagnosis import (
    keras_architectures,
    keras_data,
    keras_gradients,
    keras_healthy,
    keras_optimisers,
    keras_outputs,
    keras_unseen,
)
from tests.programs.diagnosis.corpus import Corpus

MODULES = (
    *(keras_outputs, keras_data, keras_gradients, keras_optimisers, keras_architectures),
    *(keras_unseen, keras_healthy),
)
PROGRAMS = Corpus.of(each.PROGRAMS for each in MODULES)
