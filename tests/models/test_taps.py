"""Queries, keys and values out of one product: what each head of each family is given, from the weights and by the family's own
attention."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stillhouse.errors import RecipeError
from stillhouse.models.taps import key_value_heads, tapped

D, H = 8, 4
PLAIN: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": D * H, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": H,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
GPT = {"vocab_size": 96, "n_embd": D * H, "n_layer": 2, "n_head": H, "initializer_range": 0.2}
FALCON = {**PLAIN, "bias": True}
FUSED: dict[str, tuple[Any, str, list[str]]] = {
    "gpt2": (lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT)), "transformer.h.1.attn.c_attn", ["qqqq", "kkkk", "vvvv"]),
    "phi3": (
        lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**PLAIN, num_key_value_heads=2)),
        "model.layers.1.self_attn.qkv_proj", ["qqqq", "kk", "vv"],
    ),
    "modernbert": (
        lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**PLAIN | {"cls_token_id": 1, "sep_token_id": 2})),
        "model.layers.1.attn.Wqkv", ["qqqq", "kkkk", "vvvv"],
    ),
    "gpt_neox": (
        lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**PLAIN)),
        "gpt_neox.layers.1.attention.query_key_value", ["qkv"] * 4,
    ),
    "bloom": (
        lambda: hf.BloomForCausalLM(hf.BloomConfig(**GPT | {"hidden_size": D * H})),
        "transformer.h.1.self_attention.query_key_value", ["qkv"] * 4,
    ),
    "falcon of groups": (
        lambda: hf.FalconForCausalLM(hf.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2)),
        "transformer.h.1.self_attention.query_key_value", ["qqkv"] * 2,
    ),
    "falcon of one key": (
        lambda: hf.FalconForCausalLM(hf.FalconConfig(**FALCON, multi_query=True)),
        "transformer.h.1.self_attention.query_key_value", ["qqqqkv"],
    ),
    "falcon of heads": (
        lambda: hf.FalconForCausalLM(hf.FalconConfig(**FALCON, multi_query=False)),
        "transformer.h.1.self_attention.query_key_value", ["qkv"] * 4,
    ),
    "gpt_bigcode": (
        lambda: hf.GPTBigCodeForCausalLM(hf.GPTBigCodeConfig(**GPT)), "transformer.h.1.attn.c_attn", ["qqqqkv"],
    ),
    "gpt_bigcode of heads": (
        lambda: hf.GPTBigCodeForCausalLM(hf.GPTBigCodeConfig(**GPT, multi_query=False)),
        "transformer.h.1.attn.c_attn", ["qkv"] * 4,
    ),
}  # fmt: skip
"""Family -> a tiny model, the part of its second layer, and whose each D rows of that part's weight are, in their order."""
BY_INTERFACE = ("gpt2", "phi3", "modernbert", "gpt_neox", "gpt_bigcode", "gpt_bigcode of heads")
"""Those whose attention is a function of queries, keys and values that can be replaced."""
IDS = torch.arange(3, 27).reshape(2, 12)


@torch.no_grad()
def taps(name: str) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """(the model, its queries, keys and values of layer 2, what the part that makes them reads)."""
    torch.manual_seed(0)
    make, part, _ = FUSED[name]
    model, read = make().eval(), []
    for parameter in model.get_submodule(part).parameters():
        nn.init.normal_(parameter, std=0.3)  # biases begin as zeros, and would hide a wrong row
    handle = model.get_submodule(part).register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with tapped(model, ["q.2", "k.2", "v.2"]) as caught:
        model(input_ids=IDS)
    handle.remove()
    return model, dict(caught), read[0]


@pytest.mark.parametrize("name", list(FUSED))
def test_queries_keys_and_values_are_those_of_the_weights_rows_head_by_head(name: str) -> None:
    model, caught, read = taps(name)
    _, part, order = FUSED[name]
    module = model.get_submodule(part)
    weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
    for what in "qkv":
        rows = [at * D + d for at, whose in enumerate("".join(order)) if whose == what for d in range(D)]
        expected = read.double() @ weight[rows].double().T
        if module.bias is not None:
            expected = expected + module.bias[rows].double()
        torch.testing.assert_close(caught[f"{what}.2"].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(FUSED))
def test_there_are_as_many_heads_of_keys_as_the_weights_have_rows_for(name: str) -> None:
    make, _, order = FUSED[name]
    assert key_value_heads(make()) == "".join(order).count("k")


@pytest.mark.parametrize("name", BY_INTERFACE)
def test_they_are_what_the_familys_own_attention_is_given_where_nothing_is_turned(name: str) -> None:
    """The first position is turned by no angle, and values never are."""
    model, _, _ = taps(name)
    given: list[tuple[Tensor, Tensor, Tensor]] = []

    def spy(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        given.append((q, k, v))
        return torch.zeros_like(q).transpose(1, 2), None

    hf.AttentionInterface.register("spy", spy)
    hf.AttentionMaskInterface.register("spy", hf.AttentionMaskInterface()["eager"])
    model.set_attn_implementation("spy")
    with torch.no_grad(), tapped(model, ["q.2", "k.2", "v.2"]) as caught:
        model(input_ids=IDS)
    for what, theirs in zip("qkv", given[1], strict=True):
        heads = theirs.transpose(1, 2).flatten(2)  # [B, h, T, d] -> [B, T, h · d]
        positions = slice(None) if what == "v" else slice(1)
        torch.testing.assert_close(caught[f"{what}.2"][:, positions], heads[:, positions])


def test_a_family_whose_one_product_is_not_known_is_refused() -> None:
    torch.manual_seed(0)
    model = hf.CodeGenForCausalLM(hf.CodeGenConfig(**GPT, rotary_dim=4, n_positions=32))
    with (
        pytest.raises(RecipeError, match="relations of this family are not known here"),
        tapped(model, ["q.1"]),
    ):
        pass
