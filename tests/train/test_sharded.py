"""FSDP2 on two processes with gloo: the gradient of one process, whatever lies in pieces, and a student in one piece at the end.

One script makes all cases, on one process with the whole batch and on two with a half each; the tests look at what it left.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import tiny
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.models.load import load_tokenizer
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.teachers.cache import SoftTargetCache
from stillhouse.teachers.ema import Ema
from stillhouse.teachers.labelling import ask
from stillhouse.teachers.local import LocalTeacher
from stillhouse.train import sharded
from stillhouse.train.given import as_examples

CASES = {
    "tied": {"fsdp": True, "hidden": True, "save": True},
    "untied, kept targets": {"fsdp": True, "untied": True, "kept": True},
    "kept whole between the passes": {"fsdp": True, "config": {"reshard_after_forward": False}},
    "adapters on the head": {"fsdp": True, "untied": True, "lora": True},
    "autocast": {"fsdp": True, "bf16": True},
    "deeper layers": {"fsdp": True, "deeper": True},
    "moving average": {"fsdp": True, "ema": True},
    "head and all apart": {"own": ["lm_head"], "untied": True},
    "tied head apart": {"own": [["model.embed_tokens", "lm_head"]]},
    "one part": {"own": [], "layers": False},
    "teacher in pieces": {"fsdp": True, "teacher": True},
    "classifier": {"fsdp": True, "classifier": True},
}
"""`own`: what the user's own fully_shard cuts up besides the layers and the root, which is freed between the passes."""

LORA = LoraConfig(r=4, target_modules=["q_proj", "lm_head"])
META = {"temperature": 2.0, "top_k": 16, "samples": None}
SCRIPT = """
import json, shutil, sys
from pathlib import Path
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
from stillhouse import Distiller, objectives as kd
from stillhouse.losses import fused
from stillhouse.models.load import load_tokenizer
from stillhouse.models.sharded import is_sharded, whole
from stillhouse.teachers.cache import CachedTeacher, SoftTargetCache
from stillhouse.teachers.ema import Ema

base, out, ranks, cases = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
several = ranks > 1
VOCABULARY, CHUNK = range(300, 449), 5
fused.CHUNK_BYTES, fused.CHUNK_ROWS, fused.BLOCK_ROWS = 4 * 448 * CHUNK, 1, 2  # several chunks a batch


class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            self.first = {n: whole(p.grad).clone() for n, p in model.named_parameters() if p.grad is not None}


class Widest(TorchDispatchMode):
    # rows of the tallest thing that is as wide as the vocabulary
    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, torch.Tensor) and one.dim() > 1 and one.shape[-1] in VOCABULARY:
                self.rows = max(self.rows, one.numel() // one.shape[-1])
        return made


def classifier(name):
    no = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AutoModelForSequenceClassification.from_pretrained(base / name, **no)


def student(wanted):
    if "classifier" in wanted:
        return classifier("small")
    made = AutoModelForCausalLM.from_pretrained(base / ("untied" if "untied" in wanted else "student"))
    if "lora" in wanted:
        torch.manual_seed(1)
        made = get_peft_model(made, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], lora_alpha=12))
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    if several and "own" in wanted:
        for part in [*wanted["own"], *(made.model.layers if wanted.get("layers", True) else [])]:
            names = part if isinstance(part, list) else [part]
            found = [made.get_submodule(one) if isinstance(one, str) else one for one in names]
            fully_shard(found if len(found) > 1 else found[0])
        fully_shard(made, reshard_after_forward=wanted.get("layers", True))
    return made


def teacher(wanted, tokenizer):
    if "ema" in wanted:
        return Ema(0.5)
    if "kept" in wanted:
        meta = json.loads((base / "meta.json").read_text())
        return CachedTeacher(SoftTargetCache(base / "cache", meta))
    if "classifier" in wanted:
        return classifier("classifier")
    made = AutoModelForCausalLM.from_pretrained(base / "teacher")
    if several and "teacher" in wanted:
        for layer in made.model.layers:
            fully_shard(layer)
        fully_shard(made)
    return made


def distiller(name, wanted, place):
    tokenizer = load_tokenizer(base / ("small" if "classifier" in wanted else "student"))
    rows = tiny.opinions(24) if "classifier" in wanted else tiny.completions(24)
    objective = [kd.hard(0.3), kd.forward_kl(0.7, temperature=2.0)]
    if "hidden" in wanted:
        objective.append(kd.hidden(0.05))
    if "deeper" in wanted:
        objective.append(kd.deeper_layers(0.5))
    size, micro = (2, 2) if several else (8, 1)
    more = {"fsdp": True, "fsdp_config": wanted.get("config")} if several and "fsdp" in wanted else {}
    saves = {"save_strategy": "steps", "save_steps": 2} if "save" in wanted else {}
    keep = Keep()
    made = Distiller(
        model=student(wanted), teacher=teacher(wanted, tokenizer), objective=objective,
        args=tiny.arguments(place / "run", max_steps=3, max_grad_norm=0.1, logging_steps=1,
                            per_device_train_batch_size=size, gradient_accumulation_steps=micro, bf16="bf16" in wanted,
                            ddp_backend="gloo" if several else None, **more, **saves),
        train_dataset=rows, eval_dataset=rows[:4], processing_class=tokenizer, callbacks=[keep], say=print,
    )
    made.keep = keep
    return made


if several:
    torch.distributed.init_process_group("gloo")
for name, wanted in cases.items():
    place = out / name
    made = distiller(name, wanted, place)
    if "save" in wanted:
        made.evaluate()  # which leaves the root's weights whole
    assert bool(made.args.fsdp) == (several and "fsdp" in wanted), "others may be made with them"
    made.train()
    found = {"logs": [entry for entry in made.state.log_history if "loss" in entry]}
    found["sharded"] = is_sharded(made.model)
    found["pieces"] = all(isinstance(p, torch.distributed.tensor.DTensor) for p in made.model.parameters())
    made.save_model(str(place / "student"))
    batch = made.task.collate(made.train_dataset)
    with Widest() as seen:
        made.compute_loss(made.model, batch, num_items_in_batch=7).backward()
    found["rows"], found["counted"] = seen.rows, int(made.task.counted(batch).sum())
    if "save" in wanted and several:
        ends = [[whole(p).clone() for p in made.model.parameters()]]
        for how in (wanted, {key: value for key, value in wanted.items() if key != "fsdp"}):  # and in DDP
            if made.args.process_index == 0:
                shutil.rmtree(place / "run" / "checkpoint-3")
            torch.distributed.barrier()
            again = distiller(name, how, place)
            again.train(resume_from_checkpoint=True)
            ends.append([whole(p).clone() for p in again.model.parameters()])
        found["again"] = all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
        found["apart"] = max(float((a - b).abs().max()) for a, b in zip(ends[0], ends[2], strict=True))
        found["still"] = is_sharded(again.model)
    if made.args.process_index == 0:
        place.mkdir(exist_ok=True)
        save_file({n: g.contiguous() for n, g in made.keep.first.items()}, place / "gradients.safetensors")
        (place / "found.json").write_text(json.dumps(found))
if several:
    torch.distributed.barrier()
"""


def start(base: Path, out: Path, ranks: int) -> list[subprocess.Popen[str]]:
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    common = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = []
    for rank in range(ranks):
        found = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, str(out / "script.py"), str(base), str(out), str(ranks), json.dumps(CASES)]
        started.append(
            subprocess.Popen(
                command,
                env={**common, **(found if ranks > 1 else {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the script left what it made on one process and on two."""
    base = tmp_path_factory.mktemp("sharded")
    tiny.save_language_model(base / "teacher", layers=2)
    tiny.save_language_model(base / "student", layers=2, seed=1, width=16)  # so that a projector learns too
    untied(base / "student", base / "untied")
    tiny.save_classifier(base / "classifier")
    tiny.save_classifier(base / "small", layers=2)
    tokenizer = load_tokenizer(base / "student")
    task = make_task("causal_lm", tokenizer)
    meta = {**META, "outcomes": task.outcomes}
    (base / "meta.json").write_text(json.dumps(meta))
    teacher = LocalTeacher(AutoModelForCausalLM.from_pretrained(base / "teacher"), task)
    examples = as_examples(tiny.completions(24), task)
    ask(SoftTargetCache(base / "cache", meta), teacher, task, examples, 8, Silent())
    started = [*start(base, base / "one", 1), *start(base, base / "two", 2)]
    try:
        said = [one.communicate(timeout=300)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert all(one.returncode == 0 for one in started), "\n".join(text[-2000:] for text in said)
    return {"one": base / "one", "two": base / "two"}


def untied(folder: Path, target: Path) -> None:
    """The same model with a head of its own, and its tokenizer."""
    config = LlamaConfig.from_pretrained(folder, tie_word_embeddings=False)
    torch.manual_seed(2)
    LlamaForCausalLM(config).save_pretrained(target)
    load_tokenizer(folder).save_pretrained(target)


def left(runs: dict[str, Path], case: str) -> list[dict]:
    return [json.loads((runs[name] / case / "found.json").read_text()) for name in ("one", "two")]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_student_in_pieces_gets_the_gradient_of_one_process_and_not_a_part_of_it(runs, case):
    alone, both = left(runs, case)
    assert both["sharded"] and both["pieces"] and not alone["sharded"]
    mine, theirs = (load_file(runs[name] / case / "gradients.safetensors") for name in ("one", "two"))
    assert mine.keys() == theirs.keys()
    close = 2e-2 if case == "autocast" else 1e-6  # sums in another order, of numbers with eight bits
    whole = max(gradient.norm() for gradient in mine.values())
    for name, gradient in mine.items():
        floor = max(gradient.norm(), 1e-3 * whole)  # the biases of keys have none, but for rounding
        assert (theirs[name] - gradient).norm() <= close * floor, name
    for single, double in zip(alone["logs"], both["logs"], strict=True):
        for name in single.keys() - {"epoch", "learning_rate"}:
            wanted = pytest.approx(single[name], rel=2e-2 if case == "autocast" else 1e-3, abs=1e-6)
            assert double[name] == wanted, name


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"classifier"}))
def test_full_logits_are_not_made_in_pieces_either(runs, case):
    for found in left(runs, case):
        assert (
            found["counted"] > 100 > 32 >= found["rows"] > 0
        )  # 32: a head's weight, turned over, is as wide as logits


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"autocast"}))
def test_the_student_is_saved_whole_and_is_the_one_of_one_process(runs, case):
    file = "adapter_model.safetensors" if "adapters" in case else "model.safetensors"
    mine, theirs = (load_file(runs[name] / case / "student" / file) for name in ("one", "two"))
    assert mine.keys() == theirs.keys(), "a tied head is saved once"
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-2, atol=5e-3)
    assert (runs["two"] / case / "student" / "tokenizer.json").exists()
    if case not in ("adapters on the head", "classifier"):
        loaded = AutoModelForCausalLM.from_pretrained(runs["two"] / case / "student")
        assert loaded.config.architectures == ["LlamaForCausalLM"], "and not a class of FSDP's"


@pytest.mark.slow
def test_a_stopped_run_in_pieces_goes_on_to_the_same_bits_from_a_checkpoint_in_one_piece(runs):
    found = left(runs, "tied")[1]
    assert found["again"] and found["apart"] < 1e-5 and not found["still"], "the last one is DDP's"
    whole = load_file(runs["two"] / "tied" / "run" / "checkpoint-2" / "model.safetensors")
    assert whole["model.embed_tokens.weight"].shape == (448, 16) and "lm_head.weight" not in whole
    moments = load_file(runs["two"] / "tied" / "run" / "checkpoint-2" / "optimizer.safetensors")
    assert (448, 16) in {tuple(value.shape) for name, value in moments.items() if name.endswith("exp_avg")}


# ── in this process ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_a_student_in_one_piece_under_fsdp_learns_what_it_learns_without(alone, tmp_path, tied, apart):
    """Silently lost otherwise: the root's gradients, if nothing reaches its output, and its steps, if its weights are copies."""

    def learned(cut: bool) -> Distiller:
        student = small(tied)
        if cut and apart:
            fully_shard([student.model.embed_tokens, student.lm_head])  # together: they may be one
        if cut:
            fully_shard(student)
        made = Distiller(
            model=student,
            teacher=small(seed=1),
            objective=[kd.hard(0.3), kd.forward_kl(0.7, temperature=2.0)],
            args=tiny.arguments(tmp_path / str(cut), max_steps=3, gradient_accumulation_steps=2),
            train_dataset=tiny.completions(24),
            processing_class=tiny.language_tokenizer(),
        )
        made.train()
        return made

    plain, cut = learned(False), learned(True)
    cut.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert ("lm_head.weight" in saved) != tied
    for name, value in saved.items():
        own = plain.model.state_dict()[name]
        assert not torch.equal(own, small(tied).state_dict()[name]), "it has learned"
        torch.testing.assert_close(value, own, rtol=1e-3, atol=1e-5)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


class Old(FullyShardedDataParallel):
    """FSDP1 without its process group."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


def small(tied: bool = False, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=448,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"version": 1}, "version: FSDP1 is not supported"),
        ({"cpu_offload": True}, "cpu_offload is not supported"),
        ({"state_dict_type": "SHARDED_STATE_DICT"}, "state_dict_type is not supported"),
        ({}, "there is one process; start several with torchrun"),
    ],
)
def test_what_fsdp_cannot_do_here_is_a_sentence_before_training(tmp_path, settings, says):
    with pytest.raises(RecipeError, match=says):
        Distiller(
            model=small(),
            objective=[kd.hard()],
            args=tiny.arguments(tmp_path, fsdp=True, fsdp_config=settings),
            train_dataset=tiny.completions(4),
            processing_class=tiny.language_tokenizer(),
        )


def test_fsdp1_and_accelerates_own_launcher_are_refused_and_not_taken_for_ddp(tmp_path, monkeypatch):
    args = tiny.arguments(tmp_path)
    with pytest.raises(RecipeError, match="FSDP1.* is not supported; give the model itself and fsdp=True"):
        sharded.wanted(args, Old(small()), None, [])
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="start with torchrun, and set fsdp=True"):
        sharded.wanted(args, small(), None, [])


def test_deepspeed_is_refused_before_training_and_not_at_its_first_checkpoint(tmp_path, monkeypatch):
    for name in ("deepspeed", "deepspeed_plugin"):  # as the arguments say it, and as `accelerate launch` does
        args = tiny.arguments(tmp_path)
        monkeypatch.setattr(args, name, {"zero_optimization": {"stage": 3}})
        with pytest.raises(RecipeError, match="DeepSpeed is not supported .*; start with torchrun"):
            sharded.wanted(args, small(), None, [])


def halfway() -> LlamaForCausalLM:
    made = small()
    fully_shard(made.model.layers[0])
    return made


@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        (halfway, {}, r"not sharded itself; end with fully_shard\(student\)"),
        (lambda: fully_shard(get_peft_model(small(), LORA)), {}, "a student with adapters must come whole"),
        (lambda: fully_shard(small()), {"teacher": Ema()}, "copy of the student, which must come whole"),
        (lambda: fully_shard(small()), {"objective": [kd.deeper_layers()]}, "the student's last norm itself"),
        (lambda: fully_shard(small()), {"rollouts": kd.rollouts(), "teacher": small}, "cannot write"),
        (lambda: fully_shard(small()), {"best": True}, "load_best_model_at_end: is not supported"),
    ],
)
def test_what_would_hang_or_be_wrong_in_pieces_is_a_sentence_before_training(
    alone, tmp_path, model, more, says
):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    plain = {"objective": [kd.hard()], "teacher": None, "rollouts": None, **more}
    teacher = plain["teacher"]
    with pytest.raises(RecipeError, match=says):
        Distiller(
            model=model(),
            teacher=teacher() if callable(teacher) else teacher,
            objective=plain["objective"],
            rollouts=plain["rollouts"],
            args=tiny.arguments(tmp_path, **(best if "best" in more else {})),
            train_dataset=tiny.completions(4),
            eval_dataset=tiny.completions(4),
            processing_class=tiny.language_tokenizer(),
        )
