"""One tiny model of each family that can be cut, and rows that it reads."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

PLAIN: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
GROUPED = {**PLAIN, "num_key_value_heads": 2}
SPEECH: dict[str, Any] = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "init_std": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
BART = {**SPEECH, "max_position_embeddings": 64}
T5: dict[str, Any] = {
    "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_heads": 4, "initializer_factor": 1.0,
    "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=8)),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**GROUPED)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**GROUPED)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GROUPED, head_dim=8)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GROUPED, head_dim=8)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "llama classifier": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**GROUPED)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**PLAIN)),
    "bert masked": lambda: hf.BertForMaskedLM(hf.BertConfig(**PLAIN)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**PLAIN)),
    "electra": lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**PLAIN, embedding_size=12)),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=96, dim=32, hidden_dim=48, n_layers=4, n_heads=4, initializer_range=0.2)
    ),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "t5 untied": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, tie_word_embeddings=False)),
    "mt5": lambda: hf.MT5ForConditionalGeneration(hf.MT5Config(**T5)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)),
    "mbart": lambda: hf.MBartForConditionalGeneration(hf.MBartConfig(**BART)),
    "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**{**BART, "decoder_start_token_id": 0})),
    "pegasus": lambda: hf.PegasusForConditionalGeneration(
        hf.PegasusConfig(**{**BART, "decoder_start_token_id": 0})
    ),
    "bart classifier": lambda: hf.BartForSequenceClassification(hf.BartConfig(**BART)),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(**SPEECH, num_mel_bins=8, max_source_positions=10)
    ),
}  # fmt: skip


def family(name: str) -> PreTrainedModel:
    """The same weights each time."""
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


def rows(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What the model reads: two rows of 12 tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 96, (2, 12), generator=generator)
    ids[:, -1] = 2  # BART's classifier reads the end token
    if model.config.model_type == "whisper":
        return {"input_features": torch.randn(2, 8, 20, generator=generator), "decoder_input_ids": ids}
    if model.config.is_encoder_decoder and not type(model).__name__.endswith("Classification"):
        return {"input_ids": ids, "decoder_input_ids": ids}
    return {"input_ids": ids}


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """What it says about them."""
    said: torch.Tensor = model(**rows(model)).logits
    return said
