"""All torch programs of this folder."""

from __future__ import annotations

from tests.programs.diagnosis import (
    torch_architectures,
    torch_gradients,
    torch_healthy,
    torch_healthy_sequences,
    torch_inputs,
    torch_labels,
    torch_loops,
    torch_losses,
    torch_numbers,
    torch_optimisers,
    torch_outputs,
    torch_parts,
    torch_ranges,
    torch_starts,
    torch_unseen,
    torch_unseen_loops,
)
from tests.programs.diagnosis.corpus import Corpus

MODULES = (
    torch_outputs,
    torch_ranges,
    torch_losses,
    torch_labels,
    torch_inputs,
    torch_gradients,
    torch_loops,
    torch_optimisers,
    torch_starts,
    torch_architectures,
    torch_parts,
    torch_numbers,
    torch_unseen,
    torch_unseen_loops,
    torch_healthy,
    torch_healthy_sequences,
)
PROGRAMS = Corpus.of(each.PROGRAMS for each in MODULES)
