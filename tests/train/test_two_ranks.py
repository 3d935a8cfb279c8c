"""Two processes with gloo: the same gradient, the same log, and DDP is not bypassed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny

SCRIPT = """
import json, os, sys
from pathlib import Path
import tiny
import torch
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, TrainerCallback
from stillhouse import Distiller, objectives as kd
from stillhouse.models.load import load_tokenizer

base, out, rows, micro = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
calls = []
if "WORLD_SIZE" in os.environ:
    forward = DistributedDataParallel.forward
    DistributedDataParallel.forward = lambda self, *a, **k: (calls.append(1), forward(self, *a, **k))[1]

class Keep(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            inner = getattr(model, "module", model)
            gradients = {n: p.grad.detach().clone() for n, p in inner.named_parameters()}
            save_file(gradients, out / f"gradients-{args.process_index}.safetensors")

made = Distiller(
    model=AutoModelForCausalLM.from_pretrained(base / "student"),
    teacher=AutoModelForCausalLM.from_pretrained(base / "teacher"),
    objective=[kd.hard(0.3), kd.forward_kl(0.7, temperature=2.0), kd.hidden(0.05)],
    args=tiny.arguments(out / "run", max_steps=3, max_grad_norm=0, per_device_train_batch_size=rows,
                        gradient_accumulation_steps=micro, logging_steps=1, save_strategy="steps", save_steps=2,
                        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None),
    train_dataset=tiny.completions(24),
    processing_class=load_tokenizer(base / "student"),
    callbacks=[Keep()],
    say=print,
)
made.train()
if made.args.process_index == 0:
    logs = [entry for entry in made.state.log_history if "loss" in entry]
    (out / "logs.json").write_text(json.dumps({"logs": logs, "calls": len(calls)}))
    made.save_model(str(out / "student"))
made.accelerator.wait_for_everyone()
"""


def run(base: Path, out: Path, ranks: int, rows: int, micro: int) -> dict:
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    common = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    processes = []
    for rank in range(ranks):
        ddp = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
        }
        environment = {**common, **(ddp if ranks > 1 else {}), "MASTER_PORT": str(port)}
        command = [sys.executable, str(out / "script.py"), str(base), str(out), str(rows), str(micro)]
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(said)[-3000:]
    return json.loads((out / "logs.json").read_text())


@pytest.mark.slow
def test_two_ranks_give_the_gradient_the_log_and_the_weights_of_one(tmp_path):
    tiny.save_language_model(tmp_path / "teacher", layers=2)
    tiny.save_language_model(
        tmp_path / "student", layers=1, seed=1, width=16
    )  # so that a projector learns too
    one = run(tmp_path, tmp_path / "one", 1, 8, 1)
    two = run(tmp_path, tmp_path / "two", 2, 2, 2)
    assert two["calls"] == 6  # DDP's forward, once a micro-batch
    mine = load_file(tmp_path / "one" / "gradients-0.safetensors")
    for rank in (0, 1):
        theirs = load_file(tmp_path / "two" / f"gradients-{rank}.safetensors")
        apart = sum((mine[name] - theirs[name]).double().square().sum() for name in mine).sqrt()
        assert apart / sum(mine[name].double().square().sum() for name in mine).sqrt() < 1e-6
    for single, double in zip(one["logs"], two["logs"], strict=True):
        for name in ("loss", "hard", "forward_kl", "hidden"):
            assert double[name] == pytest.approx(single[name], rel=1e-4)
    weights = [load_file(tmp_path / name / "student" / "model.safetensors") for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)
