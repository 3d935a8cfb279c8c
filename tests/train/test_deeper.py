"""The student's own last layer teaches its earlier ones: against a naive reference, without a teacher, and nothing left behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from safetensors.torch import load_file

import tiny
from families import GROUPED, PLAIN, family, rows
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.models.heads import hidden_at_head
from stillhouse.models.load import load_tokenizer
from stillhouse.models.taps import final_norm, layers_of, speaking_stack, tapped
from stillhouse.recipe import parse_recipe
from stillhouse.static import static_checks
from stillhouse.train.deeper import DeeperTerms

T, WEIGHT = 1.5, 0.7
TERM = kd.deeper_layers(WEIGHT, layers=[1, 2], temperature=T)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {
        "causal_lm": tiny.save_language_model(base / "lm", layers=3),
        "classification": tiny.save_classifier(base / "classifier", layers=3),
    }


def made(folders, place, task, objective, rows=8, **changes) -> Distiller:
    auto = hf.AutoModelForCausalLM if task == "causal_lm" else hf.AutoModelForSequenceClassification
    return Distiller(
        model=auto.from_pretrained(folders[task]),
        objective=objective,
        args=tiny.arguments(place, **{"max_steps": 2, "max_grad_norm": 0, **changes}),
        train_dataset=tiny.completions(rows) if task == "causal_lm" else tiny.opinions(rows),
        processing_class=load_tokenizer(folders[task]),
    )


def naive(last: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
    """Σ T²·KL(last ‖ early) over positions, the last held still."""
    p, q = (z.double() / T for z in (last.detach(), early))
    return T**2 * F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True)


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
def test_value_and_gradient_are_those_of_the_dense_reference(folders, tmp_path, task):
    one = made(folders, tmp_path, task, [TERM, kd.hard(0.3)])
    student, heads = one.model.eval(), one.objective.deeper
    batch = one.task.collate(one.train_dataset[:5])
    mask = one.task.counted(batch)
    total = int(mask.sum())
    loss = one.compute_loss(student, batch, num_items_in_batch=total)
    loss.backward()
    parameters = [*student.parameters(), *heads.parameters()]
    found = [parameter.grad.clone() for parameter in parameters]
    student.zero_grad()
    heads.zero_grad()

    inputs = {
        name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch
    }
    said = student(**inputs, output_hidden_states=True)
    if task == "causal_lm":
        size = one.task.outcomes
        last, labels = said.logits[:, :-1][mask][:, :size], batch["labels"][:, 1:][mask]
        early = [
            student.lm_head(student.model.norm(said.hidden_states[layer]))[:, :-1][mask][:, :size]
            for layer in (1, 2)
        ]
    else:
        last, labels = said.logits, batch["labels"]
        real = batch["attention_mask"].unsqueeze(-1)
        early = [
            heads.heads[f"0-{layer}"]((said.hidden_states[layer] * real).sum(1) / real.sum(1))
            for layer in (1, 2)
        ]
    expected = WEIGHT * sum(naive(last, z) for z in early) / 2
    expected = (expected + 0.3 * F.cross_entropy(last.double(), labels, reduction="sum")) / total
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert len(list(heads.parameters())) == (0 if task == "causal_lm" else 4)
    for one_found, parameter in zip(found, parameters, strict=True):
        torch.testing.assert_close(one_found, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["t5", "t5 untied", "bart", "marian"])
def test_a_decoders_last_layer_teaches_its_earlier_ones_as_the_dense_reference_in_float64(name, tmp_path):
    student = tiny.translator(name, layers=2, decoder_layers=3)
    whole = copy.deepcopy(student).double()
    one = Distiller(
        model=student, objective=[TERM, kd.hard(0.3)], args=tiny.arguments(tmp_path),
        train_dataset=tiny.translations(5), processing_class=tiny.translator_tokenizer(),
    )  # fmt: skip
    batch, size = one.task.collate(one.train_dataset), one.task.outcomes
    mask = one.task.counted(batch)
    loss = one.compute_loss(student.eval(), batch, num_items_in_batch=int(mask.sum()))
    loss.backward()

    said = whole(**one.task.inputs(whole, batch), output_hidden_states=True)
    norm, scale = getattr(whole.get_decoder(), "final_layer_norm", torch.nn.Identity()), 1.0
    if name == "t5":
        scale = whole.config.d_model**-0.5
    bias = getattr(whole, "final_logits_bias", torch.zeros(1, 48))
    early = [whole.lm_head(norm(said.decoder_hidden_states[layer]) * scale) + bias for layer in (1, 2)]
    last, early = said.logits[mask][:, :size], [logits[mask][:, :size] for logits in early]
    expected = WEIGHT * sum(naive(last, z) for z in early) / 2
    expected = (expected + 0.3 * F.cross_entropy(last, batch["labels"][mask], reduction="sum")) / mask.sum()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for (place, mine), theirs in zip(student.named_parameters(), whole.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), place
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad.float(), rtol=1e-3, atol=1e-6, msg=place)


def test_what_the_last_layer_says_does_not_move_towards_the_earlier_ones(folders, tmp_path):
    one = made(folders, tmp_path, "causal_lm", [TERM])
    batch = one.task.collate(one.train_dataset)
    one.compute_loss(one.model, batch, num_items_in_batch=1).backward()
    last = layers_of(one.model)[1][2]
    assert not any(parameter.grad.any() for parameter in last.parameters())


def test_layers_that_pass_their_input_on_have_nothing_to_teach(folders, tmp_path):
    one = made(folders, tmp_path, "causal_lm", [TERM])
    with torch.no_grad():
        for layer in layers_of(one.model)[1][1:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    batch = one.task.collate(one.train_dataset)
    assert float(one.compute_loss(one.model, batch, num_items_in_batch=1).detach()) == pytest.approx(
        0, abs=1e-3
    )


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
def test_early_layers_come_nearer_without_any_teacher_and_the_heads_stay_out_of_the_student(
    folders, tmp_path, task
):
    one = made(
        folders, tmp_path / "run", task, [kd.hard(0.2), kd.deeper_layers()], rows=16, max_steps=12, save_strategy="steps",
        save_steps=12, learning_rate=3e-3,
    )  # fmt: skip
    one.train()
    logs = [entry["deeper_layers"] for entry in one.state.log_history if "loss" in entry]
    assert sum(logs[-3:]) < 0.9 * sum(logs[:3])
    assert logs[0] > 1e-4
    one.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert not (tmp_path / "saved" / DeeperTerms.file).exists()
    assert saved.keys() <= one.model.state_dict().keys()
    kept = tmp_path / "run" / "checkpoint-12" / DeeperTerms.file
    assert kept.exists() == (task == "classification")
    if kept.exists():
        again = made(folders, tmp_path / "other", task, [kd.hard(0.2), kd.deeper_layers()])
        again.objective.deeper.restore(kept.parent)
        for name, value in again.objective.deeper.state_dict().items():
            assert torch.equal(value, one.objective.deeper.state_dict()[name])


@pytest.mark.parametrize("task", ["causal_lm", "classification"])
def test_a_run_that_stops_goes_on_bit_for_bit(folders, tmp_path, task):
    objective = [kd.hard(0.2), kd.deeper_layers()]
    whole = made(
        folders, tmp_path / "whole", task, objective, max_steps=4, save_strategy="steps", save_steps=2
    )
    whole.train()
    again = made(folders, tmp_path / "whole", task, objective, max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


DECODERS = {
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=3, n_head=4, initializer_range=0.2)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=96, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.2,
        )
    ),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**PLAIN)),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**GROUPED)),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**GROUPED)),
}  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "qwen3", "granite", "gemma2", "gemma3", *DECODERS])
def test_the_norm_before_the_head_is_found_in_every_family(name):
    torch.manual_seed(0)
    model = DECODERS[name]().eval() if name in DECODERS else family(name)
    with torch.no_grad():
        for module in model.modules():  # a norm that multiplies by one could be forgotten
            if "Norm" in type(module).__name__:
                module.weight.uniform_(0.5, 1.5)
    norm = final_norm(model)
    ids, last = torch.arange(3, 15).unsqueeze(0), len(layers_of(model)[1])
    with torch.no_grad(), tapped(model, [f"hidden.{last}"]) as own, hidden_at_head(model) as caught:
        model(input_ids=ids, use_cache=False)
    torch.testing.assert_close(norm(own[f"hidden.{last}"]), caught[-1], rtol=1e-4, atol=1e-4)
    assert "Norm" in type(norm).__name__


@pytest.mark.parametrize("name", ["t5", "t5 untied", "mt5", "bart", "mbart", "marian", "pegasus"])
def test_what_lies_between_a_decoder_and_the_head_is_found_in_every_family(name):
    torch.manual_seed(0)
    model = family(name)
    with torch.no_grad():
        for module in model.modules():
            if "Norm" in type(module).__name__:
                module.weight.uniform_(0.5, 1.5)
    found, last = final_norm(model), f"decoder.hidden.{len(speaking_stack(model)[1])}"
    with torch.no_grad(), tapped(model, [last]) as own, hidden_at_head(model) as caught:
        model(**rows(model), use_cache=False)
    torch.testing.assert_close(found(own[last]), caught[-1], rtol=1e-4, atol=1e-4)


def test_a_family_whose_last_step_is_not_known_is_refused_instead_of_misread(monkeypatch):
    monkeypatch.setattr("stillhouse.models.taps.NORMS", ("elsewhere",))
    with pytest.raises(RecipeError, match="what LlamaForCausalLM does between its last layer and its head"):
        final_norm(family("llama"))


def test_a_layer_without_one_above_it_is_refused_before_and_when_the_student_is_there(folders, tmp_path):
    with pytest.raises(RecipeError, match=r"layer 3 has none above it .* the student has 3"):
        made(folders, tmp_path, "causal_lm", [kd.deeper_layers(layers=[3])])
    recipe = tiny.language_recipe(
        tmp_path, objective=[{"kind": "deeper_layers", "layers": [2]}, {"kind": "hard"}]
    )
    with pytest.raises(RecipeError, match="layer 2 has none above it to learn from, for the student has 2"):
        static_checks(parse_recipe(recipe), tmp_path)
    deep = tiny.save_translator(tmp_path / "deep", layers=3, decoder_layers=2)
    data = {"train": {"source": str(tiny.translation_file(tmp_path / "pairs.jsonl"))}, "split": 20}
    for student in ({"from_teacher": {"layers": 3, "decoder_layers": 2}}, {"model": str(deep)}):
        teacher = {"model": str(deep)}
        apart = parse_recipe(
            {**recipe, "task": "seq2seq", "student": student, "teacher": teacher, "data": data}
        )
        with pytest.raises(
            RecipeError, match="layer 2 has none above it to learn from, for the student has 2"
        ):
            static_checks(apart, tmp_path)
    with pytest.raises(RecipeError, match="names a layer twice"):
        parse_recipe({**recipe, "objective": [{"kind": "deeper_layers", "layers": [1, 1]}]})


def test_students_some_of_whose_layers_say_nothing_to_read_are_refused(tmp_path):
    student = tiny.translator("bart")
    student.config.decoder_layerdrop = 0.1
    with pytest.raises(RecipeError, match=r"leaves some out at random \(decoder_layerdrop: 0.1\)"):
        DeeperTerms({0: kd.deeper_layers()}, student, 36, 0)
    with pytest.raises(RecipeError, match="deeper_layers of an encoder–decoder is for task: seq2seq"):
        DeeperTerms({0: kd.deeper_layers()}, family("bart classifier"), 2, 0)


def test_a_student_that_teaches_itself_has_a_control_and_no_teacher(tmp_path):
    recipe = parse_recipe(
        tiny.language_recipe(tmp_path, objective=[{"kind": "deeper_layers"}, {"kind": "hard"}])
    )
    assert recipe.has_control and not recipe.has_teacher and recipe.temperature is None
