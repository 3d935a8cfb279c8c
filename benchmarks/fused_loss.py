"""The loss alone: hidden states and head in, gradients out.

Against three bare matrix products (the floor of any training step through a head), dense cross-entropy and KL by
autograd, and TRL's chunked divergence.
"""

from importlib.util import find_spec

import torch
from common import arguments, extra_memory, in_turn, report

from stillhouse import objectives as kd
from stillhouse.losses import Head
from stillhouse.models.machine import device
from stillhouse.recipe import Term
from stillhouse.tasks import Scores
from stillhouse.teachers import Dense, TopK
from stillhouse.train.objective import Objective


def main() -> None:
    asked = arguments(
        __doc__ or "",
        positions=1024,
        vocabulary=49_152,
        width=576,
        rounds=5,
        top_k=64,
        dtype="float32",
        only="",
    )
    positions, vocabulary, width = asked.positions, asked.vocabulary, asked.width
    dtype = getattr(torch, asked.dtype)
    torch.manual_seed(0)
    torch.set_default_device(device())
    hidden = torch.randn(positions, width)
    weight = torch.nn.Parameter(torch.randn(vocabulary, width) * 0.05)
    knows, head = torch.randn(positions, width), torch.randn(vocabulary, width) * 0.05
    if device().type != "cpu":  # models lie there as they are multiplied
        hidden, knows, head = hidden.to(dtype), knows.to(dtype), head.to(dtype)
        weight = torch.nn.Parameter(weight.detach().to(dtype))
    labels = torch.randint(vocabulary, (positions,))
    log_p, ids = torch.log_softmax((knows @ head.T).float(), -1).topk(asked.top_k, -1)
    kept = TopK(ids, log_p, 1.0)
    rows = torch.arange(positions)

    def student() -> Scores:
        weight.grad = None
        return Scores(hidden.clone().requires_grad_(), Head(weight), labels, rows)

    def products() -> None:
        h, w = hidden.to(dtype), weight.detach().to(dtype)
        logits = h @ w.T
        logits @ w
        logits.T @ h

    def products_four() -> None:
        knows.to(dtype) @ head.to(dtype).T
        products()

    def ours(terms: list[Term], targets: Dense | TopK | None) -> None:
        scores = student()
        loss, _ = Objective(terms)(scores, targets, positions, dtype)
        loss.backward()

    def dense_cross_entropy() -> None:
        scores = student()
        torch.nn.functional.cross_entropy((scores.hidden @ weight.T).float(), labels).backward()

    def dense_kl() -> None:
        scores = student()
        log_q = torch.log_softmax((scores.hidden @ weight.T).float(), -1)
        log_p = torch.log_softmax((knows @ head.T).float(), -1)
        torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean").backward()

    def trl_chunked() -> None:
        from trl.trainer.distillation_trainer import _chunked_divergence_loss

        scores = student()
        mask = torch.ones(1, positions)
        loss, *_ = _chunked_divergence_loss(scores.hidden[None], knows[None], weight, head, mask, beta=0.0)
        loss.backward()

    def liger_cross_entropy() -> None:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

        LigerFusedLinearCrossEntropyFunction.apply(student().hidden, weight, labels)[0].backward()

    def liger_jsd() -> None:
        from liger_kernel.ops.fused_linear_jsd import LigerFusedLinearJSDFunction

        LigerFusedLinearJSDFunction.apply(student().hidden, weight, knows, head, None, 0.0).backward()

    sides = {
        "three bare products": products,
        "four bare products (dense teacher)": products_four,
        "ours: hard": lambda: ours([kd.hard()], None),
        "ours: kept top-k, forward KL": lambda: ours([kd.forward_kl()], kept),
        "ours: kept top-k, hard + forward KL": lambda: ours([kd.hard(0.2), kd.forward_kl(0.8)], kept),
        "ours: dense forward KL": lambda: ours([kd.forward_kl()], Dense(knows, Head(head))),
        "dense cross-entropy": dense_cross_entropy,
        "dense KL": dense_kl,
        "TRL chunked divergence": trl_chunked,
        "Liger fused linear cross-entropy": liger_cross_entropy,
        "Liger fused linear JSD, forward KL": liger_jsd,
    }
    if find_spec("trl") is None:
        del sides["TRL chunked divergence"]
    if find_spec("liger_kernel") is None or device().type == "cpu":  # its kernels want an accelerator
        sides = {name: side for name, side in sides.items() if not name.startswith("Liger")}
    sides = {name: side for name, side in sides.items() if asked.only in name or "products" in name}
    full = 4 * positions * vocabulary
    # a gradient is there in any training, and each side frees it before it makes its own; the first one nobody saw made
    weight.grad = torch.zeros_like(weight)
    extra_memory(dense_cross_entropy)
    memory = {
        f"extra memory of {name}, of the full logits": f"{extra_memory(sides[name]) / full:.2f}"
        for name in sides
        if "products" not in name
    }
    title = f"loss alone, {positions} positions × {vocabulary} tokens, width {width}, {asked.dtype}"
    report(title, in_turn(sides, asked.rounds), "three bare products", **memory)


if __name__ == "__main__":
    main()
