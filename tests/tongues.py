"""A second tokenizer for tiny models: other merges, other special tokens, another template."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import tiny

TURNS = (
    "<s>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def other_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's way of writing spaces, and a token that every text begins with."""
    inner = Tokenizer(models.BPE(byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<s>", "</s>", "</turn>"]
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=special, show_progress=False)
    inner.train_from_iterator(tiny.sentences(60, seed=5), trainer)
    made = json.loads(inner.to_str())
    vocabulary = made["model"]["vocab"]
    for byte in range(
        256
    ):  # pieces of the model, as in SentencePiece; a trainer would make special tokens of them
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    inner = Tokenizer.from_str(json.dumps(made))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TURNS
    return tokenizer


def save_other_student(folder: Path) -> Path:
    """A tiny Llama with that tokenizer."""
    tiny.save_language_model(folder, layers=2, seed=3, pad_to=720)
    other_tokenizer().save_pretrained(folder)
    return folder
