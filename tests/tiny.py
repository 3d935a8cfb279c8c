"""Tiny real models and data, made on the spot: real transformers classes, real tokenizers, real files."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    TrainingArguments,
)

torch.set_num_threads(1)  # models this small are slower on more

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "the",
    "a",
    "small",
    "old",
    "red",
    "quiet",
    "river",
    "teacher",
    "student",
    "model",
    "learns",
    "reads",
    "writes",
    "keeps",
    "finds",
    "gives",
    "house",
    "book",
    "night",
    "morning",
    "slowly",
    "well",
    "never",
    "always",
    "and",
    "but",
    "because",
    "under",
    "over",
    "near",
    "film",
    "good",
    "bad",
]


def sentences(count: int, seed: int = 0) -> list[str]:
    """Seeded nonsense of real words, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(WORDS), (count, 12), generator=generator).tolist()
    return [f"{number} " + " ".join(WORDS[word] for word in draw) + "." for number, draw in enumerate(draws)]


def language_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a ChatML template; pad == eos, as in many real ones."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(sentences(400), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def save_language_model(
    folder: Path, layers: int = 4, width: int = 32, seed: int = 0, pad_to: int = 448
) -> Path:
    """A Llama whose head has more rows (`pad_to`) than the tokenizer has pieces."""
    tokenizer = language_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=pad_to,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece with BERT's special tokens."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        sentences(400), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    return tokenizer


def save_classifier(
    folder: Path, layers: int = 3, width: int = 32, labels: tuple[str, ...] = ("bad", "good")
) -> Path:
    """A BERT with dropout on, and its WordPiece tokenizer."""
    tokenizer = encoder_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def translator_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words; every text ends with </s>, as T5's and Marian's do, and nothing else is put around it."""
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "</s>", "<unk>"]
    inner.train_from_iterator(
        [" ".join(WORDS)], trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def translator(
    family: str, width: int = 32, layers: int = 3, pad_to: int = 48, decoder_layers: int | None = None
) -> PreTrainedModel:
    """An encoder–decoder for `translator_tokenizer`, whose head has more rows (`pad_to`) than that has words.

    "t5" scales what its tied head reads, "t5 untied" does not; BART's and Marian's logits have a bias that no layer makes.
    """
    torch.manual_seed(0)
    decoder_layers = decoder_layers or layers
    if family.startswith("t5"):
        config = T5Config(
            vocab_size=pad_to, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=layers, num_heads=4,
            num_decoder_layers=decoder_layers, decoder_start_token_id=0, tie_word_embeddings=family == "t5", dropout_rate=0.1,
        )  # fmt: skip
        return T5ForConditionalGeneration(config).eval()
    made, config_class = {
        "bart": (BartForConditionalGeneration, BartConfig), "marian": (MarianMTModel, MarianConfig)
    }[family]  # fmt: skip
    config = config_class(
        vocab_size=pad_to, d_model=width, encoder_layers=layers, decoder_layers=decoder_layers, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, init_std=0.2,
        max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None, forced_eos_token_id=None,
        decoder_start_token_id=1 if family == "bart" else 0, tie_word_embeddings=True,
    )  # fmt: skip
    model = made(config).eval()
    model.final_logits_bias.normal_()
    return model


def save_translator(folder: Path, family: str = "t5", **shape: int) -> Path:
    """A `translator` with its tokenizer."""
    translator(family, **shape).save_pretrained(folder)
    translator_tokenizer().save_pretrained(folder)
    return folder


def translations(rows: int, seed: int = 5) -> list[dict[str, str]]:
    """Two to six words, and the same words backwards."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(rows):
        draw = torch.randint(len(WORDS), (2 + number % 5,), generator=generator).tolist()
        words = [WORDS[word] for word in draw]
        found.append({"prompt": " ".join(words), "completion": " ".join(reversed(words))})
    return found


def translation_file(path: Path, rows: int = 120, seed: int = 5) -> Path:
    """JSONL of `translations`."""
    lines = "".join(json.dumps(row) + "\n" for row in translations(rows, seed))
    path.write_text(lines, encoding="utf-8")
    return path


def save_encoder(folder: Path, layers: int = 4, width: int = 32, head: bool = True) -> Path:
    """A BERT with its masked-language-model head, or without one, and its tokenizer."""
    tokenizer = encoder_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = BertForMaskedLM(config)
    (model if head else model.bert).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_file(path: Path, rows: int = 120, seed: int = 1) -> Path:
    """JSONL with a text of two to nine sentences in each row."""
    lines = sentences(rows * 9, seed)
    texts = [" ".join(lines[9 * row : 9 * row + 2 + row % 8]) for row in range(rows)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def labelled_file(path: Path, rows: int = 160, seed: int = 2) -> Path:
    """CSV of sentences; the label is whether "good" came oftener than "bad" (added to half of them)."""
    out = ["text,label"]
    for number, text in enumerate(sentences(rows, seed)):
        word = "good" if number % 2 else "bad"
        out.append(f"{text.replace('good', 'old').replace('bad', 'red')[:-1]} {word} {word}.,{word}")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")
    return path


def language_recipe(folder: Path, **changes: object) -> dict[str, object]:
    """Plain values of a recipe that runs in some seconds; the teacher and the data are written into `folder`."""
    if not (folder / "teacher").exists():
        save_language_model(folder / "teacher")
        text_file(folder / "text.jsonl")
        text_file(folder / "other.jsonl", rows=20, seed=9)
    recipe: dict[str, object] = {
        "name": "tiny",
        "task": "causal_lm",
        "teacher": {"model": str(folder / "teacher"), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 2, "rows": 8}},
        "data": {"train": {"source": str(folder / "text.jsonl")}, "split": 20, "max_length": 48},
        "label": {"top_k": 16, "batch_size": 8},
        "objective": [{"kind": "forward_kl", "weight": 0.8}, {"kind": "hard", "weight": 0.2}],
        "train": {
            "steps": 8,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "checkpoint_every": 3,
            "precision": "float32",
        },
        "evaluate": {
            "rows": 12,
            "resamples": 200,
            "also": [{"name": "other", "source": str(folder / "other.jsonl")}],
        },
        "report": {"samples": 2},
    }
    return {**recipe, **changes}


def masked_recipe(folder: Path, **changes: object) -> dict[str, object]:
    """The same for an encoder that learns from plain text."""
    if not (folder / "encoder").exists():
        save_encoder(folder / "encoder")
        text_file(folder / "text.jsonl")
    recipe: dict[str, object] = {
        "name": "tiny-masked",
        "task": "masked_lm",
        "teacher": {"model": str(folder / "encoder"), "dtype": "float32"},
        "student": {"from_teacher": {"layers": 2, "by": "every_nth"}},
        "data": {"train": {"source": str(folder / "text.jsonl")}, "split": 20, "max_length": 32},
        "label": {"top_k": 16, "batch_size": 8},
        "objective": [{"kind": "forward_kl", "weight": 0.8}, {"kind": "hard", "weight": 0.2}],
        "train": {"steps": 8, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 3, "precision": "float32"},
        "evaluate": {"rows": 12, "resamples": 200},
        "report": {"samples": 2},
    }  # fmt: skip
    return {**recipe, **changes}


def arguments(folder: Path, **changes: object) -> TrainingArguments:
    """TrainingArguments of a short run on the processor that logs each step."""
    plain: dict[str, object] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "seed": 7,
    }
    return TrainingArguments(**{**plain, **changes})


def completions(rows: int, seed: int = 3) -> list[dict[str, str]]:
    """Prompts with completions of very different lengths."""
    lines = [text.split() for text in sentences(rows, seed)]
    return [
        {"prompt": " ".join(words[:2]), "completion": " " + " ".join(words[2 : 4 + (5 * number) % 9])}
        for number, words in enumerate(lines)
    ]


def opinions(rows: int, seed: int = 4) -> list[dict[str, str]]:
    """Labelled sentences."""
    return [
        {"text": text[:-1] + f" {label}", "label": label}
        for number, text in enumerate(sentences(rows, seed))
        for label in ["good" if number % 2 else "bad"]
    ]
