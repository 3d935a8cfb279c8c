"""Adapters, rounded weights and zeros: what is trained, what is handed over, and that it goes on after a stop."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import MissingExtra, RecipeError
from stillhouse.losses import forward_kl, hard_cross_entropy, reverse_kl
from stillhouse.models.heads import hidden_at_head, language_head
from stillhouse.models.load import load_model, load_tokenizer
from stillhouse.progress import Silent
from stillhouse.recipe import Adapter, Quantize, Sparsity, Student, Train
from stillhouse.steps.training import HARD_ONLY, _fit
from stillhouse.tasks import make_task
from stillhouse.train.forms import Adapted, Quantized, Sparse, forms_of, inner_products, load_weights
from stillhouse.train.sparsity import mask_of, share_at
from typed import hurried, stillhouse, write_recipe

IDS = torch.arange(1, 13).view(1, 12)


def model(tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=448, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def logits(one: torch.nn.Module) -> torch.Tensor:
    return one(IDS).logits


def step(one: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=0.1)
    logits(one).logsumexp(-1).mean().backward()
    optimizer.step()


# ── adapters ────────────────────────────────────────────────────────────────────────────────────────────────────────


SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "rslora": {"rank": 4, "alpha": 8.0},
    "dora": {"rank": 4},
    "loha": {"rank": 4},
    "lokr": {"rank": 4},
    "ia3": {},
}
PARTS = ("lora_", "hada_", "lokr_", "ia3_")
"""What PEFT calls an adapter's own parameters."""


@pytest.mark.parametrize("kind", SMALL)
def test_an_adapter_changes_nothing_at_first_trains_alone_and_is_added_in_at_the_end(
    kind: str, tmp_path: Path
) -> None:
    one, plain = model(), model()
    form = Adapted(Adapter(kind=kind, **SMALL[kind]))
    form.begin(one)
    torch.testing.assert_close(logits(one), logits(plain))
    trained = [name for name, parameter in one.named_parameters() if parameter.requires_grad]
    assert trained and all(any(part in name for part in PARTS) for name in trained)
    for _ in range(3):
        step(one)
    learned = logits(one).detach()
    assert not torch.allclose(learned, logits(plain), atol=1e-3)
    form.finish(one, tmp_path)
    torch.testing.assert_close(logits(one), learned, rtol=1e-4, atol=1e-4)
    assert set(one.state_dict()) == set(plain.state_dict())
    assert not any("peft" in type(module).__module__ for module in one.modules())
    one.save_pretrained(tmp_path / "student")
    torch.testing.assert_close(logits(LlamaForCausalLM.from_pretrained(tmp_path / "student")), logits(one))
    beside = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(beside.eval()), learned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind != "dora"])
def test_an_adapter_on_the_head_reaches_the_loss_that_is_taken_in_chunks(kind: str) -> None:
    """The loss projects with the head's weight itself; an adapter beside it would silently not learn."""
    one = model(tied=False)
    Adapted(Adapter(kind=kind, target_modules=["lm_head"], **SMALL[kind])).begin(one)
    learned = [parameter for parameter in one.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in learned:
            parameter.normal_()
    with hidden_at_head(one) as caught:
        one(IDS)
    head = language_head(one, 448)
    by_weight, by_module = head.logits(caught[0][0]), logits(one)[0]
    torch.testing.assert_close(by_weight, by_module, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(by_module, logits(model(tied=False))[0], atol=1e-2)
    wanted = torch.autograd.grad(by_module.logsumexp(-1).mean(), learned)
    for ours, theirs in zip(
        torch.autograd.grad(by_weight.logsumexp(-1).mean(), learned), wanted, strict=True
    ):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_rank_stabilised_lora_is_scaled_by_the_root_of_its_rank() -> None:
    for kind, scale in (("lora", 8.0 / 4), ("rslora", 8.0 / 2)):
        one = model()
        Adapted(Adapter(kind=kind, rank=4, alpha=8.0)).begin(one)
        assert one.model.layers[0].mlp.up_proj.scaling == {"default": scale}


@pytest.mark.parametrize(
    ("kind", "knob"), [("ia3", {"rank": 4}), ("ia3", {"alpha": 1.0}), ("lokr", {"dropout": 0.1})]
)
def test_a_knob_that_an_adapter_does_not_have_is_refused(kind: str, knob: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(knob))}: {kind} has none; remove it"):
        Adapter(kind=kind, **knob)


def test_an_adapter_on_the_head_of_a_kind_that_the_loss_cannot_read_is_refused() -> None:
    one = get_peft_model(model(tied=False), OFTConfig(target_modules=["lm_head"], oft_block_size=8))
    with pytest.raises(RecipeError, match="oft is not supported there"):
        language_head(one, 448)


@pytest.mark.parametrize(
    ("wanted", "tied", "message"),
    [
        ({"target_modules": ["lm_head"]}, True, "its embeddings"),
        ({"target_modules": ["lm_head"], "kind": "dora"}, False, "DoRA on the head"),
        ({"target_modules": ["lm_head"], "dropout": 0.1}, False, "an adapter on the head has none"),
        ({"target_modules": ["q_prj"]}, True, "no product 'q_prj'; it has .*q_proj"),
    ],
)
def test_adapters_that_could_not_be_added_in_are_refused(
    wanted: dict[str, object], tied: bool, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Adapted(Adapter(**wanted)).begin(model(tied))


def test_a_classifiers_head_is_trained_whole_beside_its_adapters(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "bert")
    one = load_model(folder, "AutoModelForSequenceClassification")
    form = Adapted(Adapter(rank=2))
    form.begin(one)
    trained = {name for name, parameter in one.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("classifier.") for name in trained)
    before = one.classifier.original_module.weight.clone()
    step(one)
    learned = logits(one).detach()
    form.finish(one, tmp_path)
    torch.testing.assert_close(logits(one), learned, rtol=1e-4, atol=1e-4)
    assert not torch.equal(one.classifier.weight, before)
    again = load_model(folder, "AutoModelForSequenceClassification")
    assert set(one.state_dict()) == set(again.state_dict())


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, form in (("peft", Adapted(Adapter())), ("torchao", Quantized(Quantize()))):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=r"pip install 'stillhouse\["):
            form.begin(model())


# ── rounded weights ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "bits", "group"), [("int8", 8, None), ("int4", 4, 16)])
def test_the_student_that_is_handed_over_has_the_weights_that_training_saw(
    kind: str, bits: int, group: int | None, tmp_path: Path
) -> None:
    one, plain = model(), model()
    form = Quantized(Quantize(weights=kind, group_size=16))
    form.begin(one)
    assert not torch.equal(logits(one), logits(plain)), "products see rounded weights"
    assert set(one.state_dict()) == set(plain.state_dict()), "a checkpoint holds the unrounded ones"
    step(one)
    assert all(p.requires_grad for p in one.parameters())
    seen = logits(one).detach()
    latent = {name: p.detach().clone() for name, p in one.named_parameters()}
    form.finish(one, tmp_path)
    torch.testing.assert_close(logits(one), seen)
    for name, module in inner_products(one).items():
        assert type(module) is torch.nn.Linear
        assert all(
            len(row.unique()) <= 2**bits
            for row in module.weight.unflatten(1, (-1, group or module.in_features)).flatten(0, 1)
        )
        was, now = (
            w.double().unflatten(1, (-1, group or module.in_features))
            for w in (latent[f"{name}.weight"], module.weight)
        )
        scale = was.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 0.5)
        steps = now / scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert ((now - was).abs() <= 0.501 * scale).all(), "each goes to the nearest"
    assert torch.equal(one.lm_head.weight, latent["model.embed_tokens.weight"]), (
        "head and embeddings stay whole"
    )


def test_groups_that_do_not_divide_a_row_are_refused() -> None:
    with pytest.raises(RecipeError, match="32 inputs, no multiple of 24"):
        Quantized(Quantize(weights="int4", group_size=24)).begin(model())


# ── zeros ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_share_of_zeros_rises_by_the_cubic_schedule_and_stays() -> None:
    wanted = Sparsity(amount=0.8, until=0.5)
    assert share_at(wanted, 0.0) == 0.0
    assert share_at(wanted, 0.25) == pytest.approx(0.8 * (1 - 0.5**3))
    assert share_at(wanted, 0.5) == share_at(wanted, 1.0) == pytest.approx(0.8)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_masks_have_the_share_that_was_asked_for_and_keep_the_largest(share: float) -> None:
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(0))
    free, grouped = mask_of(weight, share, "unstructured"), mask_of(weight, share, "2:4")
    for mask in (free, grouped):
        assert float((~mask).float().mean()) == pytest.approx(share, abs=0.01)
    if share:
        assert weight[~free].abs().max() <= weight[free].abs().min()
    fours, sizes = grouped.unflatten(1, (-1, 4)), weight.abs().unflatten(1, (-1, 4))
    touched = ~fours.all(-1)
    assert (fours.sum(-1)[touched] == 2).all()
    for kept, size in zip(fours[touched], sizes[touched], strict=True):
        assert size[kept].min() >= size[~kept].max()


def test_two_of_four_needs_rows_that_divide_by_four() -> None:
    torch.manual_seed(0)
    odd = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=9, hidden_size=8, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2
        )
    )
    with pytest.raises(RecipeError, match="6 inputs, no multiple of 4; use unstructured"):
        Sparse(Sparsity(pattern="2:4")).begin(odd)


# ── whole runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

FORMS = {
    "adapter": {"adapter": {"rank": 4}},
    **{f"adapter {kind}": {"adapter": {"kind": kind, **SMALL[kind]}} for kind in ("loha", "lokr", "ia3")},
    "rounded": {"quantize": {"weights": "int4", "group_size": 16, "activations": "int8"}},
    "zeros": {"sparsity": {"pattern": "2:4", "until": 0.5}},
    "zeros, rounded": {"sparsity": {"amount": 0.4}, "quantize": {}},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_run_that_was_stopped_goes_on_to_the_same_student(name: str, tmp_path: Path) -> None:
    start = tiny.save_language_model(tmp_path / "start", layers=1)
    task = make_task("causal_lm", load_tokenizer(start), 48)
    examples, _ = task.encode([{"text": text, "id": str(n)} for n, text in enumerate(tiny.sentences(60))])
    train = Train(batch_size=2, learning_rate=1e-2, checkpoint_every=3)
    student = Student(model="here", **FORMS[name])

    def fitted() -> dict[str, torch.Tensor]:
        folder = _fit(
            train, 8, 0, HARD_ONLY, None, task, start, examples, {"bfloat16": False}, tmp_path / "run", Silent(),
            forms=forms_of(student),
        )  # fmt: skip
        return load_file(folder / "model.safetensors")

    whole = fitted()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-8")
    for when in ("after the sixth step", "between the last step and the end"):
        shutil.rmtree(tmp_path / "run" / "model")
        again = fitted()
        assert whole.keys() == again.keys(), when
        assert all(torch.equal(value, again[key]) for key, value in whole.items()), when
    made = load_model(tmp_path / "run" / "model", "AutoModelForCausalLM")
    if "sparsity" in FORMS[name]:
        for module in inner_products(made).values():
            zeros = float((module.weight == 0).float().mean())
            assert zeros >= FORMS[name]["sparsity"].get("amount", 0.5) - 0.01
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").exists() == name.startswith("adapter")


def test_a_model_learns_its_rounded_form_from_itself_unrounded(tmp_path: Path) -> None:
    """`from_teacher: {}` and `quantize`: it begins as its teacher, and ends nearer to it than the teacher rounded."""
    wanted = {"weights": "int4", "group_size": 16}
    values = tiny.language_recipe(
        tmp_path, student={"from_teacher": {}, "quantize": wanted}, objective=[{"kind": "forward_kl"}],
        label={"top_k": "all"}, evaluate={"rows": 4, "speed": False, "hard_only": False},
        train={"steps": 40, "batch_size": 8, "learning_rate": 2e-3, "precision": "float32"},
    )  # fmt: skip
    run = tmp_path / "run"
    with hurried():
        said = stillhouse(
            "run", write_recipe(tmp_path / "r.yaml", values), "--folder", run, "--until", "train"
        )
    assert said.code == 0, said.err
    teacher, begun, learned, rounded = (
        load_model(folder, "AutoModelForCausalLM").eval()
        for folder in (
            tmp_path / "teacher",
            run / "initial" / "model",
            run / "train" / "model",
            tmp_path / "teacher",
        )
    )
    own = teacher.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in begun.state_dict().items())
    form = Quantized(Quantize(**wanted))
    form.begin(rounded)
    form.finish(rounded, tmp_path)
    tokenizer = tiny.language_tokenizer()
    ids = torch.tensor([tokenizer(text)["input_ids"][:12] for text in tiny.sentences(40, seed=8)])

    @torch.no_grad()
    def far(one: torch.nn.Module) -> float:
        log_p, log_q = (m(ids).logits[..., : len(tokenizer)].double().log_softmax(-1) for m in (teacher, one))
        return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())

    assert far(learned) < 0.9 * far(rounded)
    for module in inner_products(learned).values():
        assert all(len(row.unique()) <= 16 for row in module.weight.unflatten(1, (-1, 16)).flatten(0, 1))


# ── models that somebody else put adapters into ─────────────────────────────────────────────────────────────────────


def adapted(*, tied: bool = False, **settings: object) -> PeftModel:
    """A student in PEFT's own wrapper, as its users have it, whose B are not zero."""
    torch.manual_seed(1)
    wanted: dict[str, object] = {
        "r": 4,
        "lora_alpha": 12,
        "target_modules": ["q_proj", "lm_head"],
        **settings,
    }
    made = get_peft_model(model(tied), LoraConfig(**wanted), adapter_name="mine")
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return made


def distiller(student: torch.nn.Module, place: Path, **changes: object) -> Distiller:
    return Distiller(
        model=student,
        teacher=model(),
        objective=[kd.forward_kl(0.7, temperature=2.0), kd.hard(0.3), kd.reverse_kl(0.2)],
        args=tiny.arguments(place, **{"max_steps": 4, **changes}),
        train_dataset=tiny.completions(8),
        processing_class=tiny.language_tokenizer(),
    )


def test_adapters_in_the_head_and_below_get_the_gradients_of_the_dense_loss(tmp_path: Path) -> None:
    student, teacher = adapted(), model()
    made = distiller(student, tmp_path)
    batch, size = made.task.collate(made.train_dataset), made.task.outcomes
    made.compute_loss(student, batch, num_items_in_batch=7).backward()
    found = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    mask = made.task.counted(batch)
    own, whose = (
        one(input_ids=batch["input_ids"]).logits[:, :-1][mask][:, :size].double()
        for one in (student, teacher)
    )
    whose, labels = whose.detach(), batch["labels"][:, 1:][mask]
    loss = 0.7 * forward_kl(own, whose, temperature=2.0) + 0.3 * hard_cross_entropy(own, labels)
    ((loss + 0.2 * reverse_kl(own, whose)).sum() / 7).backward()
    exact = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    assert found.keys() == exact.keys() and len(found) == 6  # A and B of the head and of two layers' queries
    assert all("lora_" in name for name in found)
    for name, gradient in found.items():
        assert (gradient - exact[name]).norm() / exact[name].norm() < 1e-4, name


def test_a_wrapped_student_trains_its_adapters_alone_and_goes_on_bit_for_bit_after_a_stop(
    tmp_path: Path,
) -> None:
    changes = {"save_strategy": "steps", "save_steps": 2}
    whole = distiller(adapted(), tmp_path, **changes)
    before = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    moved = {name for name, value in whole.model.state_dict().items() if not torch.equal(value, before[name])}
    assert len(moved) == 6 and all("lora_" in name for name in moved)
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = distiller(adapted(), tmp_path, **changes)
    resumed.train(resume_from_checkpoint=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_head_that_is_trained_whole_beside_the_adapters_is_the_one_that_learns(tmp_path: Path) -> None:
    student = adapted(target_modules=["q_proj"], modules_to_save=["lm_head"])
    made = distiller(student, tmp_path)
    batch = made.task.collate(made.train_dataset)
    made.compute_loss(student, batch, num_items_in_batch=7).backward()
    gradients = {name for name, p in student.named_parameters() if p.grad is not None and "lm_head" in name}
    assert gradients == {"base_model.model.lm_head.modules_to_save.mine.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tied": True}, "this model's head is its embeddings"),
        ({"use_dora": True}, "Dora is not supported there"),
        ({"lora_dropout": 0.1}, "has no dropout, where losses are taken in chunks"),
    ],
)
def test_an_adapter_on_the_head_that_the_loss_would_misread_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        distiller(adapted(**settings), tmp_path).train()


def test_a_checkpoint_does_not_tie_a_head_that_is_not_the_embeddings(tmp_path):
    student, start = tiny.translator("t5 untied"), tiny.translator("t5 untied")
    for model in (student, start):
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    student.save_pretrained(tmp_path)
    load_weights(start, tmp_path)
    assert torch.equal(start.lm_head.weight, student.lm_head.weight)
    assert torch.equal(start.shared.weight, student.shared.weight)
    tied = tiny.translator("t5")
    tied.shared.weight.data.normal_()
    tied.save_pretrained(tmp_path / "tied")
    start = tiny.translator("t5")
    load_weights(start, tmp_path / "tied")
    assert torch.equal(start.lm_head.weight, tied.shared.weight)
