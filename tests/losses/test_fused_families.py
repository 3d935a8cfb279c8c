"""The fused loss on a tiny model of each family that treats its logits in a way of its own, against the model's own logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from closed_form import dense_term, hard_term
from stillhouse.errors import RecipeError
from stillhouse.losses import forward_kl, fused_loss, hard_cross_entropy, reverse_kl
from stillhouse.losses.fused import by_autograd
from stillhouse.models import heads
from stillhouse.models.heads import hidden_at_head, language_head, verify_head

V, PADDED, TOTAL = 90, 96, 17
PLAIN: dict[str, Any] = {
    "vocab_size": PADDED, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
OLD = {
    "vocab_size": PADDED,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.2,
}
EAGER = {**PLAIN, "head_dim": 8, "attn_implementation": "eager"}
FAMILIES: dict[str, tuple[Callable[[], Any], tuple[float, float | None, bool]]] = {
    "gemma2": (lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**EAGER, final_logit_softcapping=2.0)), (1.0, 2.0, False)),
    "gemma3": (
        lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**EAGER, final_logit_softcapping=3.0)),
        (1.0, 3.0, False),
    ),
    "vaultgemma": (
        lambda: hf.VaultGemmaForCausalLM(hf.VaultGemmaConfig(**EAGER, final_logit_softcapping=2.0)),
        (1.0, 2.0, False),
    ),
    "nanochat": (
        lambda: hf.NanoChatForCausalLM(hf.NanoChatConfig(**PLAIN, final_logit_softcapping=2.5)),
        (1.0, 2.5, False),
    ),
    "recurrent_gemma": (
        lambda: hf.RecurrentGemmaForCausalLM(
            hf.RecurrentGemmaConfig(**{**PLAIN, "num_key_value_heads": 1}, lru_width=32, logits_soft_cap=2.0)
        ),
        (1.0, 2.0, False),
    ),
    "cohere": (lambda: hf.CohereForCausalLM(hf.CohereConfig(**PLAIN, logit_scale=0.25)), (0.25, None, False)),
    "cohere2": (lambda: hf.Cohere2ForCausalLM(hf.Cohere2Config(**PLAIN, logit_scale=0.25)), (0.25, None, False)),
    "granite": (lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**PLAIN, logits_scaling=8.0)), (0.125, None, False)),
    "granitemoe": (
        lambda: hf.GraniteMoeForCausalLM(hf.GraniteMoeConfig(**PLAIN, logits_scaling=4.0)),
        (0.25, None, False),
    ),
    "hyperclovax": (
        lambda: hf.HyperCLOVAXForCausalLM(hf.HyperCLOVAXConfig(**PLAIN, logits_scaling=0.5)),
        (0.5, None, False),
    ),
    "falcon_h1": (
        lambda: hf.FalconH1ForCausalLM(
            hf.FalconH1Config(
                **PLAIN, lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8,
                mamba_n_groups=1, mamba_chunk_size=16,
            )
        ),
        (0.5, None, False),
    ),
    "phi": (lambda: hf.PhiForCausalLM(hf.PhiConfig(**PLAIN)), (1.0, None, True)),
    "gptj": (lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**OLD, rotary_dim=4)), (1.0, None, True)),
    "codegen": (lambda: hf.CodeGenForCausalLM(hf.CodeGenConfig(**OLD, rotary_dim=4)), (1.0, None, True)),
    "ctrl": (lambda: hf.CTRLLMHeadModel(hf.CTRLConfig(**OLD, dff=48)), (1.0, None, True)),
    "minicpm3": (
        lambda: hf.MiniCPM3ForCausalLM(
            hf.MiniCPM3Config(
                **{**PLAIN, "num_key_value_heads": 4}, dim_model_base=8, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8,
                qk_rope_head_dim=8, v_head_dim=8,
            )
        ),
        (1.0, None, False),
    ),
}  # fmt: skip


def family(name: str) -> Any:
    torch.manual_seed(0)
    model = FAMILIES[name][0]().eval()
    bias = model.get_output_embeddings().bias
    if bias is not None:
        torch.nn.init.normal_(bias)  # else one could forget it
    return model


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_value_and_gradients_are_those_of_the_models_own_logits(name):
    model, (scale, softcap, biased) = family(name), FAMILIES[name][1]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, V, (2, 9), generator=generator)
    labels, teacher = ids[:, 1:].flatten(), 2 * torch.randn(16, V, generator=generator)

    with hidden_at_head(model) as caught:
        model(input_ids=ids, use_cache=False)
    head = language_head(model, V)
    assert (head.scale, head.softcap, head.bias is not None) == (pytest.approx(scale), softcap, biased)
    terms = [
        (0.3, hard_term(labels, 0.1)),
        (0.7, dense_term(teacher, 2.0)),
        (0.2, by_autograd(lambda z, at: reverse_kl(z, teacher[at]))),
    ]
    loss, _ = fused_loss(caught[-1][:, :-1].flatten(0, 1), head, terms, TOTAL)
    loss.backward()
    found = gradients(model)

    own = model(input_ids=ids, use_cache=False).logits[:, :-1, :V].flatten(0, 1).double()
    nats = 0.3 * hard_cross_entropy(own, labels, label_smoothing=0.1)
    nats = (
        nats
        + 0.7 * forward_kl(own, teacher.double(), temperature=2.0)
        + 0.2 * reverse_kl(own, teacher.double())
    )
    (nats.sum() / TOTAL).backward()
    exact = gradients(model)
    assert float(loss.detach()) == pytest.approx(float(nats.detach().sum()) / TOTAL, rel=1e-5)
    assert found.keys() == exact.keys()
    for parameter, gradient in exact.items():
        assert (found[parameter] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, parameter
    verify_head(model, V)


@pytest.mark.parametrize("forgotten", ["SCALES", "SOFTCAPS"])
def test_a_scale_or_cap_that_is_not_known_is_refused_even_where_logits_are_small(monkeypatch, forgotten):
    name = "granite" if forgotten == "SCALES" else "recurrent_gemma"
    model = family(name)
    if forgotten == "SOFTCAPS":
        model.config.logits_soft_cap = 30.0  # of which logits of 2 feel next to nothing
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    verify_head(model, V)
    monkeypatch.setattr(heads, forgotten, ())
    with pytest.raises(RecipeError, match="treats its logits in a way that is not known here"):
        verify_head(model, V)
