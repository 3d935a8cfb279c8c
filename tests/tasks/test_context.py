"""A prompt that the teacher sees and the student does not."""

import pytest
import torch

import tiny
import tongues
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.losses import forward_kl
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import parse_recipe
from stillhouse.tasks import make_task
from stillhouse.tasks.context import in_context, prefixes
from stillhouse.tasks.panel import Panel, load_panel, write_panel
from stillhouse.teachers.local import LocalTeacher

CONTEXT = "You are a small quiet teacher."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_language_model(tmp_path_factory.mktemp("model") / "one", layers=2)


def test_the_same_tokens_are_counted_in_the_same_order_each_document_after_the_context(folder):
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer, 40)
    rows = [{"id": str(n), "where": "", "text": text[:30]} for n, text in enumerate(tiny.sentences(9))]
    batch = task.collate(task.encode(rows)[0])
    read = in_context(task, batch, [CONTEXT] * len(batch["labels"]))
    for one in (batch, read):
        one["said"] = one["labels"][:, 1:][task.counted(one)]
    assert torch.equal(batch["said"], read["said"])
    before, _ = prefixes(tokenizer, CONTEXT)
    documents = int((batch["position_ids"] == 0).sum()) - sum(
        int(length < batch["labels"].shape[1]) for length in batch["lengths"]
    )
    assert sum(tokenizer.decode(row).count(CONTEXT) for row in read["input_ids"].tolist()) == documents
    assert tokenizer.decode(before).startswith("<|im_start|>system")


def test_the_teacher_says_what_it_says_after_the_prompt_and_the_student_learns_it(folder, tmp_path):
    """Against a forward pass over the whole text, written out by hand."""
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer, 64)
    (example,) = task.encode(
        [{"id": "0", "where": "", "prompt": "the teacher", "completion": " reads a book"}]
    )[0]
    model = task.load(folder)
    batch = task.collate([example])
    said = LocalTeacher(Panel([model], context=CONTEXT), task).signal(batch)
    before, _ = prefixes(tokenizer, CONTEXT)
    with torch.no_grad():
        whole = model(torch.tensor([before + example.input_ids])).logits[0, :, : task.outcomes]
    at = [len(before) + n - 1 for n, label in enumerate(example.labels) if n and label >= 0]
    assert float(forward_kl(said.logits(slice(None)), whole[at]).max()) < 1e-5
    plain = LocalTeacher(task.load(folder), task).signal(batch)
    assert float(forward_kl(said.logits(slice(None)), plain.logits(slice(None))).max()) > 1e-3
    made = Distiller(
        model=task.load(folder).train(), teacher=LocalTeacher(Panel([model], context=CONTEXT), task),
        objective=[kd.forward_kl()], args=tiny.arguments(tmp_path, max_steps=20, learning_rate=1e-2),
        train_dataset=[example] * 4, processing_class=tokenizer, task=task,
    )  # fmt: skip
    made.train()
    logs = [row["forward_kl"] for row in made.state.log_history if "forward_kl" in row]
    assert logs[-1] < 0.3 * logs[0]


def test_a_template_that_adds_a_system_turn_has_it_replaced():
    tokenizer = tongues.other_tokenizer()
    tokenizer.chat_template = (
        "<s>{% if messages[0]['role'] != 'system' %}[system] be kind</turn>{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}</turn>{% endfor %}"
    )
    before, instead_of = prefixes(tokenizer, "be brief")
    row = tokenizer.apply_chat_template([{"role": "user", "content": "hm?"}], tokenize=False)
    ids = tokenizer(row, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(before + ids[len(instead_of) :])
    assert ids[: len(instead_of)] == instead_of
    assert "be brief" in text and "be kind" not in text and text.count("[system]") == 1


def test_what_a_context_teacher_writes_on_has_one_system_turn(folder, tmp_path):
    """A template that adds a system turn by itself: the prompt begins with it, and the context takes its place."""
    model = tiny.save_language_model(tmp_path / "one", layers=1)
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nbe kind<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    tokenizer.save_pretrained(model)
    write_panel(tmp_path / "panel", [model], context=CONTEXT)
    task = make_task("causal_lm", load_tokenizer(model), 64)
    panel = load_panel(task, tmp_path / "panel", torch.float32)
    turns = [{"role": "user", "content": "the river"}]
    text = task.tokenizer.apply_chat_template(turns, tokenize=False)
    prompt = torch.tensor([task.tokenizer(text, add_special_tokens=False)["input_ids"]])
    made = panel.generate(prompt, 5, 5)
    assert torch.equal(made[:, : prompt.shape[1]], prompt)
    whole = task.tokenizer.apply_chat_template(
        [{"role": "system", "content": CONTEXT}, *turns], tokenize=False
    )
    ids = torch.tensor([task.tokenizer(whole, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        for _ in range(5):
            ids = torch.cat([ids, panel.members[0](ids).logits[:, -1].argmax(-1, keepdim=True)], -1)
    assert made[0, -5:].tolist() == ids[0, -5:].tolist()


def test_a_context_lies_in_the_folder_and_samples_are_written_after_it(folder, tmp_path):
    write_panel(tmp_path / "panel", [folder], context=CONTEXT)
    task = make_task("causal_lm", load_tokenizer(folder), 40)
    panel = load_panel(task, tmp_path / "panel", torch.float32)
    prompt = torch.tensor([[5, 6, 7]])
    made = panel.generate(prompt, 3, 3)
    assert made[0, :3].tolist() == [5, 6, 7]
    assert made.shape == (1, 6)
    before, _ = prefixes(task.tokenizer, CONTEXT)
    with torch.no_grad():
        logits = panel.members[0](torch.tensor([[*before, 5, 6, 7]])).logits[0, -1]
    assert int(made[0, 3]) == int(logits.argmax())


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"objective": [{"kind": "hidden"}], "label": {"online": True}}, "compares layers"),
        ({"objective": [{"kind": "cross_tokenizer"}], "label": {"online": True}}, "without a context"),
    ],
)
def test_what_a_context_excludes_is_named(tmp_path, changes, remedy):
    recipe = tiny.language_recipe(tmp_path, **changes)
    recipe["teacher"] = {**recipe["teacher"], "context": CONTEXT}
    with pytest.raises(RecipeError, match=remedy):
        parse_recipe(recipe)
