"""What the student writes in on-policy distillation, beside a plain `generate` with its key-value cache: same batch."""

import torch
from common import arguments, in_turn, report

from models import book, smollm2
from stillhouse.models.generate import write_on
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device
from stillhouse.models.shrink.cut import every_nth, keep_layers
from stillhouse.tasks import make_task


def main() -> None:
    asked = arguments(__doc__ or "", rows=8, prompt=32, new=64, layers=15, rounds=3)
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer, asked.prompt)
    prompts = [e.input_ids for e in task.encode([{"id": "", "where": "", "text": book()}])[0][: asked.rows]]
    student = keep_layers(task.load(folder), every_nth(30, asked.layers)).to(device()).eval()
    student.generation_config.eos_token_id = None  # both write to the end
    tokenizer.eos_token = None

    def ours() -> None:
        write_on(
            student, tokenizer, prompts, vocabulary=task.outcomes, max_new_tokens=asked.new, temperature=1.0, top_p=1.0,
            seed=0,
        )  # fmt: skip

    @torch.no_grad()
    def plain() -> None:
        ids = torch.tensor(prompts, device=device())
        student.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=asked.new,
            pad_token_id=0,
        )  # fmt: skip

    found = in_turn({"plain generate": plain, "ours": ours}, asked.rounds)
    made = asked.rows * asked.new
    rates = {f"{name}: tokens/s": f"{made / min(times):,.1f}" for name, times in found.items()}
    report(f"{made} tokens written, {asked.layers} layers of SmolLM2", found, "plain generate", **rates)


if __name__ == "__main__":
    main()
