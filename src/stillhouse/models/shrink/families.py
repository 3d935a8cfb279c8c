"""What each family calls its parts: a table.  A family is added by a row here and a line in the tests; no code asks its name.

Each dimension of each weight belongs to an axis, and cutting a model is keeping some of each axis:

    V  vocabulary            H  hidden width          E  width of the token embeddings, where a projection follows them
    Q  query channels        K  key and value channels (heads × head width)
    M  neurons of an MLP     A  attention heads       .  whatever is never cut
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import RecipeError
from ...registry import did_you_mean


@dataclass(frozen=True)
class Stack:
    """One list of like layers."""

    name: str
    path: str
    """How the list's dotted name ends."""
    count: str
    """Field of the configuration: how many layers."""
    heads: str
    neurons: str
    attentions: dict[str, str]
    """Beginning of an attention's names in a layer -> its output product, whose input is all heads' channels."""
    output: str
    """The MLP's last product, whose input is its neurons."""
    kv_heads: str | None = None
    """Field of the configuration, where heads share keys and values."""


@dataclass(frozen=True)
class Family:
    """What can be cut, and what it is called."""

    stacks: tuple[Stack, ...]
    axes: dict[str, str]
    """End of a module's dotted name -> the axes of its weight; a bias has the first of them."""
    hidden: str
    """Field of the configuration: hidden width."""
    head_width: str | None = None
    """Field that gives a head's width; where there is none it is hidden ÷ heads, so heads and hidden width go together."""
    even_heads: bool = False
    """Whether transformers wants the hidden width to be a multiple of the heads, though a head has a width of its own."""
    embedding: str | None = None
    """Field of the width of token embeddings, where it may be another than the hidden width."""
    projection: str = ""
    """The module between such embeddings and the layers."""
    projected: str = ""
    """The family that is this one with such a projection, for families that have none (see `projected`)."""
    fixed_width: str = ""
    """Why the hidden width cannot be cut, if it cannot."""
    shared_bias: str = ""
    """A table of the first layer that all layers use, by head; then every layer keeps the same heads."""
    scaled: str = ""
    """The norm before a head whose logits are divided by the root of the hidden width, if the configuration says so; it makes up for
    another width."""
    extra: dict[str, str] = field(default_factory=dict)
    """Fields that must follow another: name -> the field whose value it repeats."""


_LLAMA_STACK = Stack(
    "layers", "layers", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    {"self_attn.": "self_attn.o_proj"}, "mlp.down_proj", "num_key_value_heads",
)  # fmt: skip
_LLAMA = Family(
    stacks=(_LLAMA_STACK,),
    axes={
        "embed_tokens": "VH", "lm_head": "VH", "score": ".H", "norm": "H",
        "q_proj": "QH", "k_proj": "KH", "v_proj": "KH", "o_proj": "HQ", "q_norm": ".", "k_norm": ".",
        "gate_proj": "MH", "up_proj": "MH", "down_proj": "HM",
        "input_layernorm": "H", "post_attention_layernorm": "H",
        "pre_feedforward_layernorm": "H", "post_feedforward_layernorm": "H",
    },
    hidden="hidden_size",
    head_width="head_dim",
)  # fmt: skip
_GEMMA = Family(
    _LLAMA.stacks, _LLAMA.axes, _LLAMA.hidden, _LLAMA.head_width,
    fixed_width="its embeddings are scaled by the square root of the hidden width",
)  # fmt: skip
_BERT_STACK = Stack(
    "layers", "encoder.layer", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    {"attention.": "attention.output.dense"}, "output.dense",
)  # fmt: skip
_BERT = Family(
    stacks=(_BERT_STACK,),
    axes={
        "word_embeddings": "VE", "position_embeddings": ".E", "token_type_embeddings": ".E",
        "embeddings.LayerNorm": "E", "LayerNorm": "H",
        "query": "QH", "key": "QH", "value": "QH", "attention.output.dense": "HQ",
        "intermediate.dense": "MH", "output.dense": "HM", "pooler.dense": "HH", "classifier": ".H",
        "cls.predictions": "V", "transform.dense": "HH", "decoder": "VH", "cls.seq_relationship": ".H",
        "lm_head": "V", "lm_head.dense": "HH", "layer_norm": "H", "classifier.dense": "HH", "out_proj": ".H",
    },
    hidden="hidden_size",
)  # fmt: skip
_ELECTRA = Family(
    stacks=(_BERT_STACK,),
    axes={
        **_BERT.axes,
        "embeddings_project": "HE", "generator_predictions.LayerNorm": "E",
        "generator_predictions.dense": "EH", "generator_lm_head": "VE", "discriminator_predictions.dense": "HH",
        "dense_prediction": ".H",
    },
    hidden="hidden_size",
    embedding="embedding_size",
    projection="embeddings_project",
)  # fmt: skip
_DISTILBERT = Family(
    stacks=(
        Stack(
            "layers", "transformer.layer", "n_layers", "n_heads", "hidden_dim",
            {"attention.": "attention.out_lin"}, "ffn.lin2",
        ),
    ),
    axes={
        "word_embeddings": "VH", "position_embeddings": ".H", "LayerNorm": "H",
        "q_lin": "QH", "k_lin": "QH", "v_lin": "QH", "out_lin": "HQ", "sa_layer_norm": "H",
        "lin1": "MH", "lin2": "HM", "output_layer_norm": "H", "pre_classifier": "HH", "classifier": ".H",
        "vocab_transform": "HH", "vocab_layer_norm": "H", "vocab_projector": "VH",
    },
    hidden="dim",
)  # fmt: skip
_T5 = Family(
    stacks=(
        Stack(
            "encoder", "encoder.block", "num_layers", "num_heads", "d_ff",
            {"layer.0.SelfAttention.": "layer.0.SelfAttention.o"}, "layer.1.DenseReluDense.wo",
        ),
        Stack(
            "decoder", "decoder.block", "num_decoder_layers", "num_heads", "d_ff",
            {
                "layer.0.SelfAttention.": "layer.0.SelfAttention.o",
                "layer.1.EncDecAttention.": "layer.1.EncDecAttention.o",
            },
            "layer.2.DenseReluDense.wo",
        ),
    ),
    axes={
        "shared": "VH", "embed_tokens": "VH", "lm_head": "VH",
        "q": "QH", "k": "QH", "v": "QH", "o": "HQ", "relative_attention_bias": ".A",
        "wi": "MH", "wi_0": "MH", "wi_1": "MH", "wo": "HM", "layer_norm": "H", "final_layer_norm": "H",
        "classification_head.dense": "HH", "classification_head.out_proj": ".H",
    },
    hidden="d_model",
    head_width="d_kv",
    shared_bias="relative_attention_bias",
    scaled="decoder.final_layer_norm.weight",
)  # fmt: skip


def _bart_stack(name: str, attentions: tuple[str, ...]) -> Stack:
    outputs = {f"{one}.": f"{one}.out_proj" for one in attentions}
    fields = (f"{name}_layers", f"{name}_attention_heads", f"{name}_ffn_dim")
    return Stack(name, f"{name}.layers", *fields, outputs, "fc2")


_BART = Family(
    stacks=(_bart_stack("encoder", ("self_attn",)), _bart_stack("decoder", ("self_attn", "encoder_attn"))),
    axes={
        "shared": "VH", "embed_tokens": "VH", "lm_head": "VH", "embed_positions": ".H", "final_logits_bias": ".V",
        "q_proj": "QH", "k_proj": "QH", "v_proj": "QH", "out_proj": "HQ",
        "self_attn_layer_norm": "H", "encoder_attn_layer_norm": "H", "final_layer_norm": "H",
        "layernorm_embedding": "H", "layer_norm": "H", "fc1": "MH", "fc2": "HM",
        "classification_head.dense": "HH", "classification_head.out_proj": ".H",
        "conv1": "H..", "conv2": "HH.", "proj_out": "VH",
    },
    hidden="d_model",
    extra={"num_hidden_layers": "encoder_layers"},
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "llama": replace(_LLAMA, even_heads=True),
    **dict.fromkeys(("mistral", "qwen2", "qwen3", "smollm3", "granite"), _LLAMA),
    "gemma": _GEMMA,
    **dict.fromkeys(("gemma2", "gemma3_text"), replace(_GEMMA, even_heads=True)),
    "bert": replace(_BERT, projected="electra"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _BERT),
    "electra": _ELECTRA,
    "distilbert": _DISTILBERT,
    **dict.fromkeys(("t5", "mt5"), _T5),
    **dict.fromkeys(("bart", "mbart", "whisper"), _BART),
    **dict.fromkeys(
        ("marian", "pegasus"), replace(_BART, fixed_width="its positions are waves of that many channels")
    ),
}
"""`model_type` of a configuration -> its family."""


def family_of(config: dict[str, Any]) -> Family:
    """The family of a model with this config.json.  Raises: RecipeError that says what is missing for another."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise RecipeError(
            f"student.from_teacher: {kind!r} models can only lose whole layers here, for nothing says yet which of their "
            f"weights are heads, neurons and channels (models/shrink/families.py); keep layers alone, or use "
            f"from_config.{did_you_mean(kind, FAMILIES)}"
        )
    return FAMILIES[kind]


@dataclass(frozen=True)
class Part:
    """Where a tensor of a model belongs."""

    axes: str
    stack: Stack | None = None
    """The list of layers it is in, None outside."""
    layer: int = 0
    prefix: str = ""
    """The dotted name up to its layer's number, "model.layers."."""
    rest: str = ""
    """The dotted name after it, "self_attn.q_proj.weight"."""

    @property
    def attention(self) -> str | None:
        """The beginning of the names of the attention it is in."""
        found = [
            start for start in (self.stack.attentions if self.stack else {}) if self.rest.startswith(start)
        ]
        return found[0] if found else None


def part_of(name: str, dimensions: int, family: Family) -> Part:
    """Where the tensor `name` belongs.  Raises: RecipeError for one that the family's table does not know."""
    module, _, kind = name.rpartition(".") if "." in name else (name, "", "weight")
    known = [end for end in family.axes if f".{module}".endswith(f".{end}")]
    if not known:
        raise RecipeError(
            f"student.from_teacher: this model has a weight {name} that nothing says how to cut "
            "(models/shrink/families.py); keep whole layers alone, or use from_config."
        )
    axes = family.axes[max(known, key=len)]
    axes = axes if kind == "weight" else axes[:1]
    if len(axes) != dimensions:
        raise RecipeError(
            f"student.from_teacher: the weight {name} has {dimensions} dimensions where {len(axes)} were expected; "
            "keep whole layers alone, or use from_config."
        )
    for stack in family.stacks:
        if found := re.match(rf"((?:.*\.)?{re.escape(stack.path)}\.)(\d+)\.(.+)", name):
            return Part(axes, stack, int(found[2]), found[1], found[3])
    return Part(axes)
