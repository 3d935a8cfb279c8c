"""What a family's layers hand on, what their parts are called and how it writes, by its configuration alone: no weights are read, and
no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..recipe import Attention, Embeddings, Hidden, Relations, Similarity

ABOUT_LAYERS = (Attention, Embeddings, Hidden, Relations, Similarity)
"""Terms of an objective that compare what layers of student and teacher hand on."""
LEFT_OUT = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
"""What families call the probability that a layer is left out of a training step (LayerDrop)."""
WITHOUT_MAPS = {
    "deberta": "",
    "deberta-v2": "",
    "falcon": "",
    "fsmt": "encoder",
    "led": "encoder",
    "longt5": "encoder",
    "mpnet": "",
    "mvp": "encoder",
    "openai-gpt": "",
    "pegasus_x": "encoder",
}
"""Families that keep an attention's map to themselves, or cut it up, unless their configuration asks for maps -> the stack that does,
"" where there is but one."""
WITHOUT_PARTS = (
    *("codegen", "ctrl", "deberta", "deberta-v2", "gpt_neox_japanese", "mpt", "openai-gpt", "persimmon"),
    "xlnet",
)
"""Families whose queries, keys and values come from parts of other names, or from one product that is not taken apart here."""
TOGETHER = ("c_attn", "query_key_value", "qkv_proj", "Wqkv")
"""What families call the part that makes queries, keys and values in one product."""
IN_BLOCKS = ("gpt2", "modernbert", "phi3")
"""Families in whose product come all queries first, then all keys, then all values."""
BY_GROUP = ("bloom", "falcon", "gpt_bigcode", "gpt_neox")
"""Families in whose product come the queries of a first group of heads, their key and their value, then those of the next."""
PROJECTIONS = {
    "q": ("q_proj", "query", "q_lin", "q"),
    "k": ("k_proj", "key", "k_lin", "k"),
    "v": ("v_proj", "value", "v_lin", "v"),
}
"""What families call the parts that make queries, keys and values."""

LANGUAGE_FIRST = ("mbart", "plbart", "m2m_100", "nllb-moe", "seamless_m4t", "seamless_m4t_v2")
"""Families that are told the target's language by a token of the target, or in place of its start token."""
SEVERAL_AHEAD = ("prophetnet", "xlm-prophetnet")
"""Families whose decoder foretells the next tokens in several streams, which share a head."""


def target_fault(family: str, kind: str) -> str | None:
    """Why targets of an encoder–decoder are not what `task: seq2seq` learns, in a sentence; None if they may be.

    Args: family: its model_type; kind: the name of its class.
    """
    if family in LANGUAGE_FIRST:
        return (
            f"{kind} begins a target with the token of its language, which task: seq2seq does not set; name a model that writes "
            "one language, such as Marian, or one that is told by the source, such as T5."
        )
    if family in SEVERAL_AHEAD:
        return (
            f"{kind} foretells several tokens at each place of a target, and task: seq2seq learns one; name a model that foretells "
            "one, such as BART or T5."
        )
    return None


def point_at(stack: str, what: str, layer: int) -> str:
    """What a layer of a stack hands on, as `tapped` calls it."""
    return f"{stack}.{what}.{layer}" if stack else f"{what}.{layer}"


def nothing_at(point: str) -> str:
    """The sentence for a model that leaves nothing there."""
    return f"objective: a model of this family hands on no {point}; use another term about layers."


def no_parts(family: str, what: str) -> str:
    """The sentence for a family whose queries ("q"), keys or values are not found."""
    return (
        f"objective: {family} has no part named {' or '.join(PROJECTIONS[what])}; relations of this family are not known here, use "
        "hidden or similarity instead."
    )


def left_out_fault(config: Mapping[str, Any]) -> str | None:
    """Why terms about the layers of a student cannot be, in a sentence, where some would hand on nothing in some steps."""
    name = next((name for name in LEFT_OUT if config.get(name)), None)
    if name is None:
        return None
    return (
        "objective: terms about layers need every layer in every step, and the student leaves some out at random "
        f"({name}: {config[name]}); set it to 0 in the config.json that it is made from."
    )


def layers_fault(terms: Iterable[Any], config: Mapping[str, Any], learns: bool) -> str | None:
    """Why the layers of a model cannot be compared as these terms about layers would, in a sentence; None if its configuration, that
    of its text model, does not tell.

    Args: learns: whether it is the student, which trains.
    """
    terms, family = list(terms), str(config.get("model_type"))
    if terms and learns and (fault := left_out_fault(config)):
        return fault
    for term in terms:
        if isinstance(term, Attention) and family in WITHOUT_MAPS and not config.get("output_attentions"):
            return nothing_at(point_at(WITHOUT_MAPS[family], "attention", 1))
        if isinstance(term, Relations) and family in WITHOUT_PARTS:
            return no_parts(family, min(term.of))  # as they are looked at
    return None
