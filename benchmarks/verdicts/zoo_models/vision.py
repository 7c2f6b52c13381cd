"""timm and torchvision models at 64 pixels, 8 rows, 10 classes, untrained."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch.nn import functional as F

from benchmarks.verdicts.zoo_models.base import Architecture, adam, adamw, digits, photographs, sgd

#: convolutions: AdamW 1e-3
TIMM_CNNS = (
    *("resnet18", "resnet50", "resnext26ts", "legacy_seresnet18", "skresnet18", "nf_resnet26", "cspresnet50"),
    *("mobilenetv2_100", "mobilenetv3_small_100", "mnasnet_small", "efficientnet_b0", "tf_efficientnetv2_b0"),
    *("tinynet_e", "lcnet_050", "ghostnet_100", "rexnet_100", "regnety_002", "densenet121", "dla34", "hrnet_w18_small"),
    *("repvgg_a0", "mobileone_s0", "inception_v3", "convnext_atto", "convnextv2_atto"),
)
#: attention and mixing: AdamW 5e-4, as in DeiT's recipe
TIMM_TRANSFORMERS = {
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_patch16_224": {"img_size": 64},
    "cait_xxs24_224": {"img_size": 64},
    "xcit_nano_12_p16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4},
    "coat_lite_tiny": {"img_size": 64},
    "mixer_s32_224": {"img_size": 64},
    "resmlp_12_224": {"img_size": 64},
    "gmlp_ti16_224": {"img_size": 64},
    "mobilevit_xxs": {},
    "edgenext_xx_small": {},
    "poolformer_s12": {},
    "fastvit_t8": {},
    "pvt_v2_b0": {},
    "levit_128s": {"img_size": 64},
}
#: torchvision's own: SGD with momentum, as its references and tutorials train them. SqueezeNet has no normalisation and
#: takes Adam 1e-4: SGD drives the ReLU before its softmax to zero for good, by hand too
TORCHVISION = {
    "resnet18": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "squeezenet1_1": {},
    "mnasnet0_5": {},
    "googlenet": {"aux_logits": False, "init_weights": True},
}


def _timm(name: str, **more: Any) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **more)


def _torchvision(name: str, **more: Any) -> Any:
    import torchvision

    return getattr(torchvision.models, name)(num_classes=10, **more)


def _segmenter() -> Any:
    import torchvision

    return torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )  # fmt: skip


def _ink() -> tuple[Any, Any]:
    """Digits, and where their ink is."""
    x, _ = digits(8, 64, 3)
    return (x - 0.45) / 0.225, (x[:, 0] > 0.5).long()


def architectures() -> Iterator[Architecture]:
    classifier = functools.partial(Architecture, loss=F.cross_entropy, batch=functools.partial(photographs, 64))
    larger = functools.partial(photographs, 96)
    for name in TIMM_CNNS:
        more = {"batch": larger} if name == "inception_v3" else {}
        yield classifier(name=f"timm.{name}", model=functools.partial(_timm, name), optimizer=adamw(1e-3), **more)
    for name, sizes in TIMM_TRANSFORMERS.items():
        yield classifier(name=f"timm.{name}", model=functools.partial(_timm, name, **sizes), optimizer=adamw(5e-4))
    momentum = sgd(1e-2, momentum=0.9)
    for name, settings in TORCHVISION.items():
        yield classifier(
            name=f"torchvision.{name}",
            model=functools.partial(_torchvision, name, **settings),
            optimizer=adam(1e-4) if name == "squeezenet1_1" else momentum,
        )
    yield Architecture(
        name="torchvision.lraspp_mobilenet_v3_large",
        model=_segmenter,
        loss=lambda out, y: F.cross_entropy(out["out"], y),
        optimizer=adam(1e-3),
        batch=_ink,
    )
