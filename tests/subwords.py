"""Encoder–decoders with the tokenizers of their families, as transformers builds them, and rows that need few of their tokens."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import families
import tiny

PADDED = 8
"""Rows of the tables beyond what the tokenizer can say, as T5's have 28."""


@cache
def pieces() -> tuple[tuple[str, float], ...]:
    """A Unigram vocabulary of words and their parts, without special tokens."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.train_from_iterator(
        tiny.sentences(300), trainers.UnigramTrainer(vocab_size=150, unk_token=None, show_progress=False)
    )
    return tuple(map(tuple, _model(inner)["vocab"]))


def _model(inner: Tokenizer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inner.to_str())["model"]
    return found


def _specials(*names: str) -> list[tuple[str, float]]:
    return [(name, 0.0) for name in names]


def t5() -> PreTrainedTokenizerBase:
    """Sentinels at the end, as T5 has them."""
    sentinels = [f"<extra_id_{number}>" for number in (3, 2, 1, 0)]
    vocabulary = [*_specials("<pad>", "</s>", "<unk>"), *pieces(), *_specials(*sentinels)]
    return hf.T5Tokenizer(vocab=vocabulary, extra_ids=4)


def mt5() -> PreTrainedTokenizerBase:
    """No sentinels of its own."""
    return hf.T5Tokenizer(vocab=[*_specials("<pad>", "</s>", "<unk>"), *pieces()], extra_ids=0)


def pegasus() -> PreTrainedTokenizerBase:
    """Tokens of its pre-training first, the unknown one after them."""
    early = ["<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{number}>" for number in range(2, 7)), "<unk>"]
    return hf.PegasusTokenizer(vocab=[*_specials(*early), *pieces()], offset=7)


def bart() -> PreTrainedTokenizerBase:
    """Bytes and their merges between <s> and </s>."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(tiny.sentences(400), trainer)
    found = _model(inner)
    vocabulary = {**found["vocab"], "<mask>": len(found["vocab"])}
    return hf.BartTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in found["merges"]])


def marian() -> PreTrainedTokenizerBase:
    """Marian's numbers in a fast tokenizer: the end first, padding, which targets begin with, last of all."""
    vocabulary = [*_specials("</s>", "<unk>"), *pieces(), ("<pad>", 0.0)]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=1))
    inner.normalizer = normalizers.Replace("\n", " ")
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "t5": t5, "t5 with a head of its own": t5, "mt5": mt5, "bart": bart, "marian": marian, "pegasus": pegasus,
}  # fmt: skip


def model_for(family: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights; the tables have PADDED rows more than the tokenizer has tokens."""
    ids = {
        "vocab_size": len(tokenizer) + PADDED, "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id if family == "bart" else tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    made: PreTrainedModel
    if "t5" in family:
        config, whole = (
            (hf.MT5Config, hf.MT5ForConditionalGeneration)
            if family == "mt5"
            else (hf.T5Config, hf.T5ForConditionalGeneration)
        )
        made = whole(config(**{**families.T5, **ids}))
        if family == "t5 with a head of its own":
            made.lm_head.weight = torch.nn.Parameter(torch.randn_like(made.lm_head.weight))
        return made.eval()
    config, whole = {
        "bart": (hf.BartConfig, hf.BartForConditionalGeneration),
        "marian": (hf.MarianConfig, hf.MarianMTModel),
        "pegasus": (hf.PegasusConfig, hf.PegasusForConditionalGeneration),
    }[family]
    made = whole(config(**{**families.BART, **ids, "forced_eos_token_id": tokenizer.eos_token_id})).eval()
    made.final_logits_bias.normal_()
    if family == "bart":
        made.generation_config.forced_bos_token_id = tokenizer.bos_token_id
    if family == "marian":
        made.generation_config.bad_words_ids = [[tokenizer.pad_token_id]]
    return made


def save(family: str, folder: Path) -> Path:
    """Both, as `save_pretrained` writes them."""
    tokenizer = TOKENIZERS[family]()
    model_for(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(count: int = 12, words: int = 9) -> list[dict[str, Any]]:
    """Of some of the words alone; a row has from two to six, and its target says them backwards."""
    some = tiny.WORDS[:words]
    made = []
    for number in range(count):
        text = [some[(number * 3 + step * (number + 2)) % words] for step in range(2 + number % 5)]
        made.append({"prompt": " ".join(text), "completion": " ".join(reversed(text))})
    return [{"id": str(number), "where": f"row {number}", **row} for number, row in enumerate(made)]
