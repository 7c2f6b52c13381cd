"""Hugging Face transformers at random weights and tiny sizes: does the model, as it is wired, learn at all?

Nothing is downloaded: a configuration is enough. Batches are what a data collator gives, one dict with the labels in
it, and the model's own loss is used.
"""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, default_data_collator

from pytest_overfit import Case, Overfit, ProbeFailed

ROWS, LENGTH, WORDS = 8, 12, 100


def adamw(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW([each for each in parameters if each.requires_grad], lr=5e-3)


def make_classifier() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=3, **sizes))


def make_classifier_without_words() -> nn.Module:
    """A slip of refactoring: the encoder gets positions only."""
    model = make_classifier()
    model.bert.embeddings.word_embeddings.register_forward_hook(lambda module, args, output: output * 0)
    return model


def make_language_model() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2))


def load_reviews() -> DataLoader:
    """A real project tokenises its own data here."""
    words = torch.randint(1, WORDS, (64, LENGTH), generator=torch.Generator().manual_seed(0))
    samples = [{"input_ids": row, "label": number % 3} for number, row in enumerate(words)]
    return DataLoader(samples, batch_size=ROWS, collate_fn=default_data_collator)


def one_text_batch() -> dict[str, torch.Tensor]:
    """Padded texts; the padding's labels are -100, so that the loss leaves them out."""
    words = torch.randint(1, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(LENGTH)[None] < torch.arange(5, 5 + ROWS)[:, None]).long()
    return {"input_ids": words * mask, "attention_mask": mask, "labels": words.masked_fill(mask == 0, -100)}


def test_classifier(overfit: Overfit) -> None:
    overfit.batch(Case(name="bert", model=make_classifier, optimizer=adamw, train=load_reviews))


def test_language_model(overfit: Overfit) -> None:
    verdict = overfit.batch(Case(name="gpt2", model=make_language_model, optimizer=adamw, batch=one_text_batch))
    assert "token accuracy" in verdict.summary  # over real words alone


@pytest.mark.xfail(reason="the encoder never sees the words", strict=True, raises=ProbeFailed)
def test_classifier_without_words(overfit: Overfit) -> None:
    overfit.batch(Case(name="blind", model=make_classifier_without_words, optimizer=adamw, train=load_reviews))
