"""Makes `import torchvision` work where its compiled operators are of another build than torch, as with CPU builds.

timm, transformers and torchmetrics import it. The operators are declared and never called: no model here uses them.
"""

from __future__ import annotations

import contextlib
import functools

import torch


@functools.cache
def declare_operators() -> torch.library.Library:
    """The declarations live as long as what is returned, which the cache keeps."""
    library = torch.library.Library("torchvision", "DEF")
    for name in (
        *("nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward"),
        *("ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward"),
        *("deform_conv2d", "_deform_conv2d_backward"),
    ):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor a) -> Tensor")
    return library
