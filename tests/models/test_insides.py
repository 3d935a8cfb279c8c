"""What is said of a family's layers by its configuration alone is true of its models, and the same before training as in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import PreTrainedModel

import tiny
from families import PLAIN, T5
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.models.insides import WITHOUT_MAPS, WITHOUT_PARTS, layers_fault, point_at
from stillhouse.models.taps import AttentionMaps, tapped
from stillhouse.recipe import parse_recipe
from stillhouse.static import static_checks
from stillhouse.train.features import FeatureTerms

GPT: dict[str, Any] = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
TWO: dict[str, Any] = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "codegen": lambda: hf.CodeGenForCausalLM(hf.CodeGenConfig(**GPT, rotary_dim=4)),
    "ctrl": lambda: hf.CTRLLMHeadModel(hf.CTRLConfig(**GPT, dff=48)),
    "deberta": lambda: hf.DebertaForMaskedLM(hf.DebertaConfig(**PLAIN)),
    "deberta-v2": lambda: hf.DebertaV2ForMaskedLM(hf.DebertaV2Config(**PLAIN)),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**PLAIN)),
    "fsmt": lambda: hf.FSMTForConditionalGeneration(
        hf.FSMTConfig(**{**TWO, "langs": ["en", "de"], "src_vocab_size": 96, "tgt_vocab_size": 96})
    ),
    "gpt_neox_japanese": lambda: hf.GPTNeoXJapaneseForCausalLM(hf.GPTNeoXJapaneseConfig(**PLAIN)),
    "led": lambda: hf.LEDForConditionalGeneration(hf.LEDConfig(**TWO, attention_window=[8, 8])),
    "longt5": lambda: hf.LongT5ForConditionalGeneration(hf.LongT5Config(**T5, local_radius=4)),
    "mpnet": lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**PLAIN)),
    "mpt": lambda: hf.MptForCausalLM(hf.MptConfig(vocab_size=96, d_model=32, n_heads=4, n_layers=2)),
    "mvp": lambda: hf.MvpForConditionalGeneration(hf.MvpConfig(**TWO)),
    "openai-gpt": lambda: hf.OpenAIGPTLMHeadModel(hf.OpenAIGPTConfig(**GPT)),
    "pegasus_x": lambda: hf.PegasusXForConditionalGeneration(
        hf.PegasusXConfig(**TWO, block_size=8, num_global_tokens=2)
    ),
    "persimmon": lambda: hf.PersimmonForCausalLM(hf.PersimmonConfig(**PLAIN)),
    "xlnet": lambda: hf.XLNetLMHeadModel(
        hf.XLNetConfig(vocab_size=96, d_model=32, n_layer=2, n_head=4, d_inner=48)
    ),
}  # fmt: skip


def made(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = FAMILIES[family]().eval()
    assert model.config.model_type == family
    return model


@pytest.mark.parametrize("family", WITHOUT_MAPS)
def test_a_family_that_is_said_to_hand_on_no_maps_does_not(family: str) -> None:
    model, ids = made(family), torch.arange(3, 35).reshape(2, 16)
    AttentionMaps(model).wanted(True)
    point = point_at(WITHOUT_MAPS[family], "attention", 1)
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad(), tapped(model, [point]) as caught:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
    assert point not in caught


@pytest.mark.parametrize("family", WITHOUT_PARTS)
def test_a_family_that_is_said_to_have_no_queries_has_none(family: str) -> None:
    with (
        pytest.raises(RecipeError, match="relations of this family are not known"),
        tapped(made(family), ["q.1"]),
    ):
        pass


def refused(place: Path, config: dict[str, Any], term: dict[str, Any], **changes: Any) -> str:
    """What `validate` says of a recipe whose student's files have `config` besides their own."""
    recipe = tiny.language_recipe(place, objective=[term], label={"online": True}, **changes)
    student = tiny.save_language_model(place / "student", layers=1)
    own = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**own, **config}))
    with pytest.raises(RecipeError) as found:
        static_checks(parse_recipe({**recipe, "student": {"model": str(student)}}), place)
    return str(found.value)


def in_training(model: PreTrainedModel, term: Any) -> str:
    ids = torch.arange(3, 35).reshape(2, 16)
    with pytest.raises(RecipeError) as found:  # noqa: PT012
        terms = FeatureTerms({0: term}, model, model, 0)
        terms.attend([0])
        points, _ = terms.points([0])
        with torch.no_grad(), tapped(model, points) as caught:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        terms.value(0, caught, caught, None)  # type: ignore[arg-type]
    return str(found.value)


def test_a_family_whose_configuration_asks_for_maps_and_a_term_that_weighs_nothing_are_not_refused(
    tmp_path: Path,
) -> None:
    assert layers_fault([kd.attention()], {"model_type": "mpnet"}, True) is not None
    assert layers_fault([kd.attention()], {"model_type": "mpnet", "output_attentions": True}, True) is None
    terms = [{"kind": "attention", "weight": 0.0}, {"kind": "forward_kl"}]
    recipe = tiny.language_recipe(tmp_path, objective=terms, label={"online": True})
    student = tiny.save_language_model(tmp_path / "student", layers=1)
    own = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**own, "model_type": "mpnet"}))
    static_checks(parse_recipe({**recipe, "student": {"model": str(student)}}), tmp_path)


@pytest.mark.parametrize(
    ("family", "term"),
    [("deberta-v2", kd.attention()), ("falcon", kd.attention()), ("codegen", kd.relations())],
)
def test_what_training_would_refuse_of_a_familys_layers_is_refused_before_in_the_same_words(
    family: str, term: Any, tmp_path: Path
) -> None:
    said = refused(tmp_path, {"model_type": family}, {"kind": term.kind})
    assert said == in_training(made(family), term)
    assert family in said or "of this family hands on no attention.1" in said


def test_a_student_that_leaves_layers_out_is_refused_before_training_in_the_same_words(
    tmp_path: Path,
) -> None:
    """Its teacher may, for it does not train."""
    student = hf.OPTForCausalLM(
        hf.OPTConfig(vocab_size=96, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, layerdrop=0.1)
    )  # fmt: skip
    said = refused(tmp_path, {"layerdrop": 0.1}, {"kind": "hidden"})
    assert said == in_training(student, kd.hidden())
    assert "(layerdrop: 0.1); set it to 0" in said


def test_a_student_made_from_the_teacher_inherits_what_is_refused_unless_its_config_mends_it(
    tmp_path: Path,
) -> None:
    recipe = tiny.language_recipe(tmp_path, objective=[{"kind": "hidden"}], label={"online": True})
    path = Path(recipe["teacher"]["model"]) / "config.json"  # type: ignore[index]
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder_layerdrop": 0.2}))
    with pytest.raises(RecipeError, match=r"leaves some out at random \(encoder_layerdrop: 0.2\)"):
        static_checks(parse_recipe(recipe), tmp_path)
    mended = {"from_config": {"config": {"num_hidden_layers": 1, "encoder_layerdrop": 0.0}}}
    static_checks(parse_recipe({**recipe, "student": mended}), tmp_path)
