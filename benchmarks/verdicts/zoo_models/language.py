"""transformers models in tiny configurations: dict batches, most with their loss inside; AdamW 1e-3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.verdicts.zoo_models.base import Architecture, adamw, digits, photographs, random, tokens

#: what most configurations call their sizes
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 200,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROUTED = {**SMALL, "num_key_value_heads": 2, "output_router_logits": True}
SEQ2SEQ = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 200,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
T5 = {
    "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 200,
    "decoder_start_token_id": 0,
}  # fmt: skip
IMAGE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32,
    "patch_size": 8, "num_labels": 10,
}  # fmt: skip
SPEECH = {
    **SMALL, "conv_dim": (32, 32), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 32, "num_labels": 4,
    "mask_time_prob": 0.0,
}  # fmt: skip


def _padded() -> dict[str, torch.Tensor]:
    """Rows of 16, 14, 12, ... tokens, padded."""
    ids = tokens()
    mask = torch.arange(16)[None] < torch.tensor([16, 14, 12, 10, 16, 14, 12, 10])[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def classes() -> tuple[Any, Any]:
    return {**_padded(), "labels": torch.arange(8) % 3}, None


def labelled_tokens() -> tuple[Any, Any]:
    x = _padded()
    labels = torch.randint(0, 5, (8, 16), generator=random(1))
    return {**x, "labels": labels.masked_fill(x["attention_mask"] == 0, -100)}, None


def next_tokens() -> tuple[Any, Any]:
    x = _padded()
    return {**x, "labels": x["input_ids"].masked_fill(x["attention_mask"] == 0, -100)}, None


def masked_tokens() -> tuple[Any, Any]:
    """Every fifth token is hidden and asked for."""
    x = _padded()
    hidden = (torch.arange(16)[None] % 5 == 1) & (x["attention_mask"] == 1)
    labels = x["input_ids"].masked_fill(~hidden, -100)
    return {**x, "input_ids": x["input_ids"].masked_fill(hidden, 3), "labels": labels}, None


def spans() -> tuple[Any, Any]:
    first = torch.arange(8)
    return {**_padded(), "start_positions": first, "end_positions": first + 2}, None


def translations() -> tuple[Any, Any]:
    x = _padded()
    labels = x["input_ids"].flip(1)
    return {**x, "labels": labels.masked_fill(labels == 0, -100)}, None


def images() -> tuple[Any, Any]:
    x, y = photographs(32)
    return {"pixel_values": x, "labels": y}, None


def pixels() -> tuple[Any, Any]:
    x, y = photographs(64)
    ink = digits(8, 64)[0][:, 0] > 0.5
    return {"pixel_values": x, "labels": ink.long() * (y[:, None, None] % 3 + 1)}, None


def pairs() -> tuple[Any, Any]:
    x, _ = photographs(32)
    return {**_padded(), "pixel_values": x, "return_loss": True}, None


def sounds() -> tuple[Any, Any]:
    time = torch.arange(1600) / 1600
    pitch = torch.arange(8)[:, None] * 9.0 + 10
    noise = 0.1 * torch.randn(8, 1600, generator=random(2))
    return {"input_values": torch.sin(2 * torch.pi * pitch * time) + noise, "labels": torch.arange(8) % 4}, None


def spectrograms() -> tuple[Any, Any]:
    return {"input_features": torch.randn(8, 16, 60, generator=random(4)), "labels": tokens(8, 10)}, None


#: model class, configuration class, sizes, batch
ROWS: tuple[tuple[str, str, dict[str, Any], Callable[[], tuple[Any, Any]]], ...] = (
    ("BertForSequenceClassification", "BertConfig", {**SMALL, "num_labels": 3}, classes),
    ("BertForMaskedLM", "BertConfig", SMALL, masked_tokens),
    ("BertForQuestionAnswering", "BertConfig", SMALL, spans),
    (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 200, "num_labels": 3},
        classes,
    ),
    ("RobertaForTokenClassification", "RobertaConfig", {**SMALL, "num_labels": 5}, labelled_tokens),
    ("AlbertForSequenceClassification", "AlbertConfig", {**SMALL, "embedding_size": 32, "num_labels": 3}, classes),
    ("ElectraForSequenceClassification", "ElectraConfig", {**SMALL, "embedding_size": 32, "num_labels": 3}, classes),
    ("DebertaV2ForSequenceClassification", "DebertaV2Config", {**SMALL, "num_labels": 3}, classes),
    (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200, "n_positions": 64, "bos_token_id": 1,
         "eos_token_id": 2},
        next_tokens,
    ),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", SMALL, next_tokens),
    ("OPTForCausalLM", "OPTConfig", {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64}, next_tokens),
    ("BloomForCausalLM", "BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200}, next_tokens),
    ("LlamaForCausalLM", "LlamaConfig", SMALL, next_tokens),
    ("MistralForCausalLM", "MistralConfig", {**SMALL, "num_key_value_heads": 2}, next_tokens),
    ("Qwen2ForCausalLM", "Qwen2Config", {**SMALL, "num_key_value_heads": 2}, next_tokens),
    ("Gemma2ForCausalLM", "Gemma2Config", {**SMALL, "num_key_value_heads": 2, "head_dim": 16}, next_tokens),
    ("MixtralForCausalLM", "MixtralConfig", {**ROUTED, "num_local_experts": 4}, next_tokens),
    (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**ROUTED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "shared_expert_intermediate_size": 64},
        next_tokens,
    ),
    ("T5ForConditionalGeneration", "T5Config", T5, translations),
    ("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", {**T5, "num_experts": 4}, translations),
    ("BartForConditionalGeneration", "BartConfig", SEQ2SEQ, translations),
    ("PegasusForConditionalGeneration", "PegasusConfig", SEQ2SEQ, translations),
    ("ViTForImageClassification", "ViTConfig", IMAGE, images),
    (
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
         "num_labels": 10},
        images,
    ),
    (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1], "num_labels": 10},
        images,
    ),
    (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {"hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32, "num_labels": 4},
        pixels,
    ),
    ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", SPEECH, sounds),
    (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 30, "max_target_positions": 32},
        spectrograms,
    ),
)  # fmt: skip


def _factory(model: str, config: str, sizes: dict[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**sizes))

    return make


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    text = {**SMALL, "projection_dim": 32}
    vision = {key: value for key, value in IMAGE.items() if key != "num_labels"}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))


def architectures() -> Iterator[Architecture]:
    import transformers

    transformers.logging.set_verbosity_error()
    for model, config, sizes, batch in ROWS:
        make = _factory(model, config, sizes)
        yield Architecture(name=f"transformers.{model}", model=make, optimizer=adamw(1e-3), batch=batch)
    yield Architecture(name="transformers.CLIPModel", model=_clip, optimizer=adamw(1e-3), batch=pairs)
