"""The fused path against dense logits and autograd in float64."""

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from closed_form import dense_term, hard_term, topk_term
from stillhouse.losses import (
    Head,
    forward_kl,
    forward_kl_topk,
    fused_loss,
    hard_cross_entropy,
    topk_log_probs,
)
from stillhouse.losses import fused as module
from stillhouse.losses.fused import blocks, by_autograd, chunks
from stillhouse.losses.parts import DenseTerm
from stillhouse.losses.passes import softmax_in_place
from stillhouse.teachers import Dense

N, H, V, PADDED = 23, 6, 17, 24
CPU = torch.device("cpu")


def parts(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(N, H, generator=g),
        torch.randn(PADDED, H, generator=g),
        torch.randn(PADDED, generator=g),
        torch.randn(N, V, generator=g) * 2,
        torch.randint(V, (N,), generator=g),
    )


def cut_at(monkeypatch, size: int) -> None:
    """Chunks of so many bytes, however few rows that are."""
    monkeypatch.setattr(module, "CHUNK_BYTES", size)
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    logits = hidden @ weight[:V].T
    logits = logits if bias is None else logits + bias[:V]
    logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def reverse_kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """A loss without a closed form here."""
    log_q = logits.log_softmax(-1)
    return (log_q.exp() * (log_q - teacher.log_softmax(-1))).sum(-1)


SHAPES = [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (False, 1.0, 3.0), (True, 0.5, 2.0)]


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("positions_in_chunk", [1, 5, 23, 1000])
@pytest.mark.parametrize(("with_bias", "scale", "softcap"), SHAPES)
def test_fused_is_the_dense_loss_with_bias_scale_softcap_and_weighed_positions_whatever_the_chunks(
    monkeypatch, positions_in_chunk, with_bias, scale, softcap, weighed
):
    cut_at(monkeypatch, 4 * V * positions_in_chunk)
    hidden, weight, bias, teacher, labels = parts()
    labels[3] = -100
    positions = torch.arange(N) / 7 if weighed else torch.ones(N)
    ids, log_p = topk_log_probs(teacher, 4, temperature=2.0)
    leaves = [
        hidden.double().requires_grad_(),
        weight.double().requires_grad_(),
        bias.double().requires_grad_(),
    ]
    logits = dense(leaves[0], leaves[1], leaves[2] if with_bias else None, scale, softcap)
    nats = [
        forward_kl(logits, teacher, temperature=1.5),
        hard_cross_entropy(logits, labels, label_smoothing=0.1),
        forward_kl_topk(logits, ids, log_p, temperature=2.0),
        reverse_kl(logits, teacher),
    ]
    nats = [each * positions for each in nats]
    weights = [0.5, 0.2, 0.3, 0.7]
    expected = sum(w * n.sum() for w, n in zip(weights, nats, strict=True)) / 40
    expected.backward()

    mine = [hidden.clone().requires_grad_(), weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    head = Head(mine[1], mine[2] if with_bias else None, V, scale, softcap)
    terms = [
        (0.5, dense_term(teacher, 1.5)),
        (0.2, hard_term(labels, 0.1)),
        (
            0.3,
            topk_term(ids, log_p, 2.0),
        ),
        (0.7, by_autograd(lambda z, at: reverse_kl(z, teacher[at]))),
    ]
    loss, each = fused_loss(mine[0], head, terms, 40, positions=positions if weighed else None)
    (3.0 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        each.double(), torch.stack([n.sum() / 40 for n in nats]).detach().double(), rtol=1e-5, atol=1e-6
    )
    for leaf, own in zip(leaves, mine, strict=True):
        if leaf.grad is not None:
            torch.testing.assert_close(own.grad.double(), 3.0 * leaf.grad, rtol=2e-5, atol=2e-6)


def test_several_chunks_are_really_walked(monkeypatch):
    cut_at(monkeypatch, 4 * V * 5)
    seen = []

    def term(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        seen.append((at.start, at.stop))
        return logits[:, 0].clone(), torch.zeros_like(logits)

    hidden, weight, *_ = parts()
    fused_loss(hidden, Head(weight, None, V), [(1.0, term)], 1)
    assert seen == [(0, 4), (4, 9), (9, 13), (13, 18), (18, 23)]  # none is a remainder
    assert chunks(0, V, CPU) == []


def multiplied(hidden: Tensor, weight: Tensor, term, autocast: bool, dtype) -> tuple[Tensor, ...]:
    """The loss and both gradients, with bfloat16 autocast on or off."""
    leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = fused_loss(leaves[0], Head(leaves[1], None, V), [(1.0, term)], N, dtype)
    loss.backward()
    return loss.detach(), *(leaf.grad for leaf in leaves)


def test_autocast_multiplies_the_students_logits_in_bfloat16_and_leaves_the_teachers_in_float32():
    """A teacher's float32 head would be cast for each block, and its logits would have three digits."""
    hidden, weight, *_ = parts()
    theirs = torch.randn(V, H)
    known = Dense(torch.randn(N, H), Head(theirs))
    with torch.autocast("cpu", torch.bfloat16):
        said = known.logits(slice(0, N))
    assert torch.equal(said, known.hidden @ theirs.T)
    term = DenseTerm(1.0, known.logits)
    under, without = (
        multiplied(hidden, weight, term, *how) for how in ((True, None), (False, torch.bfloat16))
    )
    assert all(map(torch.equal, under, without))


def test_under_autocast_float32_that_is_asked_for_is_float32_in_all_three_products():
    hidden, weight, _, teacher, _ = parts()
    term = dense_term(teacher)
    under, without = (multiplied(hidden, weight, term, autocast, torch.float32) for autocast in (True, False))
    assert all(map(torch.equal, under, without))


def test_padded_vocabulary_rows_get_no_gradient_and_change_nothing():
    hidden, weight, bias, teacher, _ = parts()
    results = []
    for padding in (0.0, 1e4):
        rows = torch.cat([weight[:V], torch.full_like(weight[V:], padding)]).requires_grad_()
        offsets = torch.cat([bias[:V], torch.full_like(bias[V:], padding)]).requires_grad_()
        states = hidden.clone().requires_grad_()
        loss, _ = fused_loss(states, Head(rows, offsets, V), [(1.0, dense_term(teacher))], N)
        loss.backward()
        assert not rows.grad[V:].any()
        assert not offsets.grad[V:].any()
        assert rows.grad[:V].abs().sum() > 0
        results.append((loss.detach(), states.grad, rows.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_bfloat16_arithmetic_stays_near_the_exact_gradient(monkeypatch):
    cut_at(monkeypatch, 4 * V * 5)  # several chunks share one room
    monkeypatch.setattr(module, "ADDED_ROWS", 5)
    hidden, weight, _, teacher, _ = parts()
    found = {}
    for dtype in (None, torch.bfloat16):
        states, rows = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        term = [(1.0, dense_term(teacher))]
        loss, _ = fused_loss(states, Head(rows, None, V), term, N, dtype)
        loss.backward()
        assert states.grad.dtype == rows.grad.dtype == torch.float32
        found[dtype] = (loss.item(), states.grad, rows.grad)
    assert found[torch.bfloat16][0] == pytest.approx(found[None][0], rel=0.02)
    for exact, rough in zip(found[None][1:], found[torch.bfloat16][1:], strict=True):
        assert (rough - exact).norm() / exact.norm() < 0.03
        assert not torch.equal(rough, exact)


def test_an_all_masked_batch_gives_zero_and_zero_gradients_not_nan():
    _, weight, bias, teacher, labels = parts()
    states, rows, offsets = (
        torch.zeros(0, H, requires_grad=True),
        weight.requires_grad_(),
        bias.requires_grad_(),
    )
    terms = [
        (1.0, dense_term(teacher)),
        (1.0, hard_term(labels)),
    ]
    loss, each = fused_loss(states, Head(rows, offsets, V), terms, 0)
    loss.backward()
    assert loss.item() == 0.0
    assert each.tolist() == [0.0, 0.0]
    assert not rows.grad.any()
    assert not offsets.grad.any()


def test_a_head_of_ready_logits_passes_the_gradient_through_and_leaves_padding_alone():
    logits = torch.randn(N, V + 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = parts()[3]
    loss, _ = fused_loss(logits, Head(None, vocabulary=V), [(1.0, dense_term(teacher))], N)
    loss.backward()
    leaf = logits.detach().clone().requires_grad_()
    (forward_kl(leaf[:, :V], teacher).sum() / N).backward()
    torch.testing.assert_close(logits.grad, leaf.grad, rtol=1e-5, atol=1e-7)
    assert not logits.grad[:, V:].any()


def test_a_term_whose_gradient_is_one_expanded_number_is_scaled_and_not_refused():
    hidden, weight, *_ = parts()
    states = hidden.clone().requires_grad_()
    loss, _ = fused_loss(states, Head(weight, None, V), [(2.0, by_autograd(lambda z, at: z.sum(-1)))], N)
    loss.backward()
    torch.testing.assert_close(states.grad, 2.0 / N * weight[:V].sum(0).expand(N, H), rtol=1e-5, atol=1e-6)


def test_a_frozen_head_still_passes_the_gradient_to_the_hidden_states():
    hidden, weight, _, teacher, _ = parts()
    states = hidden.clone().requires_grad_()
    head = replace(Head(weight, None, V), weight=weight)
    loss, _ = fused_loss(states, head, [(1.0, dense_term(teacher))], N)
    loss.backward()
    assert states.grad.abs().sum() > 0
    assert weight.grad is None


def test_terms_of_one_temperature_share_a_softmax_and_still_add_up():
    torch.manual_seed(4)
    hidden, weight = torch.randn(9, 6, requires_grad=True), torch.randn(12, 6, requires_grad=True)
    labels, teacher = torch.randint(12, (9,)), torch.randn(9, 12)
    ids, log_p = topk_log_probs(teacher, 4)
    terms = [
        (0.4, hard_term(labels)),
        (0.6, topk_term(ids, log_p)),
    ]
    loss, sums = fused_loss(hidden, Head(weight), terms, 9)
    logits = hidden @ weight.T
    naive = [hard_cross_entropy(logits, labels).sum() / 9, forward_kl_topk(logits, ids, log_p).sum() / 9]
    expected = 0.4 * naive[0] + 0.6 * naive[1]
    assert torch.allclose(sums, torch.stack(naive), atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(loss, [hidden, weight]),
        torch.autograd.grad(expected, [hidden, weight]),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_softmax_written_over_its_own_input_is_the_plain_one():
    """torch does not promise that `out` may be the input; this says so the day it may not."""
    for rows, outcomes in ((1, 2), (7, 1000), (64, 49_152)):
        logits = torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(rows)) * 5
        own = logits.clone()
        log_sum = softmax_in_place(own)
        assert torch.equal(own, torch.softmax(logits, -1))
        torch.testing.assert_close(log_sum, logits.logsumexp(-1), rtol=1e-6, atol=1e-6)


def test_a_dense_and_a_hard_term_of_one_temperature_share_a_softmax_and_still_add_up():
    hidden, weight, _, teacher, labels = parts()
    for temperature in (1.0, 2.0):
        states, rows = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        terms = [(0.4, hard_term(labels, 0.1)), (0.6, dense_term(teacher, temperature))]
        loss, each = fused_loss(states, Head(rows, None, V), terms, N)
        loss.backward()
        leaf, own = hidden.double().requires_grad_(), weight.double().requires_grad_()
        logits = leaf @ own[:V].T
        naive = [
            hard_cross_entropy(logits, labels, label_smoothing=0.1).sum() / N,
            forward_kl(logits, teacher, temperature=temperature).sum() / N,
        ]
        (0.4 * naive[0] + 0.6 * naive[1]).backward()
        torch.testing.assert_close(each.double(), torch.stack(naive).detach().double(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(states.grad.double(), leaf.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(rows.grad.double(), own.grad, rtol=1e-4, atol=1e-6)


def test_blocks_cover_their_chunk_in_order_and_are_of_like_size():
    for size in (1, 31, 33, 56, 127, 341):
        parts = blocks(slice(7, 7 + size))
        assert [n for part in parts for n in range(part.start, part.stop)] == list(range(7, 7 + size))
        lengths = {part.stop - part.start for part in parts}
        assert max(lengths) - min(lengths) <= 1
        assert max(lengths) <= max(module.BLOCK_ROWS, -(-size // module.BLOCKS))


def test_with_a_teacher_beside_it_the_loss_takes_a_tenth_of_the_full_logits(monkeypatch):
    """Of one model's, at most, in all tensors that it makes meanwhile, where the positions are many chunks."""
    positions, outcomes, width = 1024, 8192, 16
    cut_at(monkeypatch, 4 * outcomes * positions // 20)
    states, knows = torch.randn(positions, width, requires_grad=True), torch.randn(positions, width)
    weight, theirs = torch.randn(outcomes, width), torch.randn(outcomes, width)
    term = DenseTerm(1.0, Dense(knows, Head(theirs)).logits)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as watched:
        fused_loss(states, Head(weight), [(1.0, term)], positions)[0].backward()
    held, most = 0, 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0 < most <= 0.1 * 4 * positions * outcomes


MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("device", "memory", "outcomes", "size"),
    [
        ("cpu", 64 * GIB, 49_152, 64 * MIB),
        ("cpu", 64 * GIB, 151_936, 4 * 151_936 * 256),  # so many rows at least
        ("cpu", 4 * GIB, 151_936, 64 * MIB),  # unless memory is small
        ("cpu", 2 * GIB, 49_152, 32 * MIB),
        ("cpu", GIB // 4, 49_152, 8 * MIB),
        ("cuda", 80 * GIB, 151_936, 1024 * MIB),
        ("cuda", 16 * GIB, 151_936, 256 * MIB),
        ("cuda", 2 * GIB, 49_152, 64 * MIB),
        ("mps", 16 * GIB, 1000, 256 * MIB),
    ],
)
def test_a_chunk_follows_from_the_devices_memory_and_is_hardly_larger_than_that(
    monkeypatch, device, memory, outcomes, size
):
    monkeypatch.setattr(module, "memory_of", lambda _: memory)
    found = chunks(100_000, outcomes, torch.device(device))
    rows = int(1.1 * size) // (4 * outcomes)
    assert found[-1].stop == 100_000 and len(found) == -(-100_000 // rows)
    assert all(at.stop - at.start <= rows for at in found)


def test_a_devices_memory_is_looked_up_once_and_is_all_that_it_has(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.accelerator, "get_memory_info", lambda device: asked.append(device) or (2**20, 2**36)
    )
    device = torch.device("cuda", 7)
    assert [module.memory_of(device) for _ in range(3)] == [2**36] * 3
    assert asked == [device]
    assert chunks(10_000, 151_936, device) == chunks(10_000, 151_936, device)
    assert 2**27 < module.memory_of(CPU) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    module.memory_of.cache_clear()


def test_value_and_gradients_do_not_depend_on_the_devices_memory(monkeypatch):
    """Only their last digits do, for sums are taken in another order."""
    outcomes = 2**17
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 4, generator=g), torch.randn(outcomes, 4, generator=g)
    labels, found, counts = torch.randint(outcomes, (40,), generator=g), [], []
    for memory in (2**40, 1):
        monkeypatch.setattr(module, "memory_of", lambda _, size=memory: size)
        counts.append(len(chunks(40, outcomes, CPU)))
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss, _ = fused_loss(leaves[0], Head(leaves[1]), [(1.0, hard_term(labels, 0.0))], 40)
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    assert counts == [1, 3]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_the_teachers_own_logits_are_not_overwritten():
    """A classifier's logits are its hidden states: nothing may be written over them."""
    logits, teacher = torch.randn(5, 3), torch.randn(5, 3)
    before = logits.clone(), teacher.clone()
    known = Dense(teacher, Head(None, vocabulary=3))
    fused_loss(logits.requires_grad_(), Head(None, vocabulary=3), [(1.0, DenseTerm(1.0, known.logits))], 5)
    assert torch.equal(logits, before[0])
    assert torch.equal(teacher, before[1])
