"""Terms about layers against naive float64 loops, and against what each must not see."""

import pytest
import torch
from torch import Tensor

from stillhouse.losses import features


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-5)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.softmax(2 * draw(*shape, seed=seed), -1)


def naive_mse(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack(
        [sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) / len(p) for p, q in zip(a, b, strict=True)]
    )


def naive_cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([1 - (p @ q) / (p @ p).sqrt() / (q @ q).sqrt() for p, q in zip(a, b, strict=True)])


def naive_attention_kl(a: Tensor, b: Tensor) -> Tensor:
    found = torch.zeros(a.shape[0], a.shape[2], dtype=torch.float64)
    for row in range(a.shape[0]):
        for place in range(a.shape[2]):
            heads = [
                (b[row, h, place] * (b[row, h, place] / a[row, h, place]).log()).sum()
                for h in range(a.shape[1])
            ]
            found[row, place] = torch.stack(heads).mean()
    return found


def naive_relations(a: Tensor, b: Tensor, heads: int, groups: Tensor) -> Tensor:
    found = torch.zeros(a.shape[:2], dtype=torch.float64)
    for row in range(a.shape[0]):
        for place in range(a.shape[1]):
            if groups[row, place] < 0:
                continue
            others = [n for n in range(a.shape[1]) if groups[row, n] == groups[row, place]]
            values = []
            for head in range(heads):
                sides = []
                for side in (a, b):
                    width = side.shape[2] // heads
                    part = side[row, :, head * width : (head + 1) * width]
                    sides.append(
                        torch.softmax(torch.stack([part[place] @ part[n] for n in others]) / width**0.5, -1)
                    )
                values.append((sides[1] * (sides[1] / sides[0]).log()).sum())
            found[row, place] = torch.stack(values).mean()
    return found


def naive_gram(a: Tensor, b: Tensor) -> Tensor:
    found = []
    for row in range(len(a)):
        sides = [torch.stack([side[row] @ other for other in side]) for side in (a, b)]
        found.append(
            sum((x / sides[0].norm() - y / sides[1].norm()) ** 2 for x, y in zip(*sides, strict=True))
        )
    return torch.stack(found)


def huber(x: Tensor) -> Tensor:
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


def naive_rkd_distance(a: Tensor, b: Tensor) -> Tensor:
    n, sides = len(a), []
    for side in (a, b):
        far = torch.stack([torch.stack([(x - y).norm() for y in side]) for x in side])
        sides.append(far / (far.sum() / (n * (n - 1))))
    return torch.stack(
        [sum(huber(sides[0][i, j] - sides[1][i, j]) for j in range(n) if j != i) / (n - 1) for i in range(n)]
    )


def naive_rkd_angle(a: Tensor, b: Tensor) -> Tensor:
    n, found = len(a), []
    for i in range(n):
        total = torch.zeros((), dtype=torch.float64)
        for j in range(n):
            for k in range(n):
                if len({i, j, k}) == 3:
                    one, other = (
                        torch.cosine_similarity(side[j] - side[i], side[k] - side[i], dim=0)
                        for side in (a, b)
                    )
                    total = total + huber(one - other)
        found.append(total / ((n - 1) * (n - 2)))
    return torch.stack(found)


def naive_cka(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    centre = torch.eye(n, dtype=torch.float64) - 1.0 / n
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    return (1 - (k * m).sum() / (k.norm() * m.norm())).expand(n)


GROUPS = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, -1, -1]])
CASES = {
    "hidden_mse": (features.hidden_mse, naive_mse, draw(7, 5), draw(7, 5, seed=1)),
    "hidden_cosine": (features.hidden_cosine, naive_cosine, draw(7, 5), draw(7, 5, seed=1)),
    "hidden_normalised": (
        features.hidden_normalised, lambda a, b: 2 * naive_cosine(a, b), draw(7, 5), draw(7, 5, seed=1)
    ),
    "attention_kl": (features.attention_kl, naive_attention_kl, maps(2, 3, 5, 5), maps(2, 3, 5, 5, seed=1)),
    "attention_mse": (
        features.attention_mse,
        lambda a, b: ((a - b) ** 2).sum(-1).mean(1),
        maps(2, 3, 5, 5),
        maps(2, 3, 5, 5, seed=1),
    ),
    "relation_kl": (
        lambda a, b: features.relation_kl(a, b, 2, GROUPS),
        lambda a, b: naive_relations(a, b, 2, GROUPS),
        draw(2, 5, 6),
        draw(2, 5, 10, seed=1),
    ),
    "gram": (features.gram, naive_gram, draw(6, 3), draw(6, 5, seed=1)),
    "rkd_distance": (features.rkd_distance, naive_rkd_distance, draw(6, 3), draw(6, 5, seed=1)),
    "rkd_angle": (features.rkd_angle, naive_rkd_angle, draw(6, 3), draw(6, 5, seed=1)),
    "cka": (features.cka, naive_cka, draw(6, 3), draw(6, 5, seed=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_naive_ones(name: str) -> None:
    loss, naive, student, teacher = CASES[name]
    found = []
    for function, dtype in ((loss, torch.float32), (naive, torch.float64)):
        leaf = student.to(dtype).requires_grad_()
        values = function(leaf, teacher.to(dtype))
        found.append((values.detach(), torch.autograd.grad(values.sum(), leaf)[0]))
    close(found[0][0], found[1][0])
    close(found[0][1], found[1][1])


@pytest.mark.parametrize("name", CASES)
def test_zero_where_both_sides_are_the_same_and_the_gradient_is_no_nan(name: str) -> None:
    loss, _, student, _ = CASES[name]
    leaf = student.clone().requires_grad_()
    values = loss(leaf, student)
    close(values.detach(), torch.zeros_like(values))
    assert torch.autograd.grad(values.sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("name", ["gram", "rkd_distance", "rkd_angle", "cka"])
def test_relations_among_rows_do_not_see_a_turn_of_the_whole_space_or_its_scale(name: str) -> None:
    loss = CASES[name][0]
    rows = draw(6, 5)
    turn = torch.linalg.qr(draw(5, 5, seed=3))[0]
    close(loss(3.0 * rows @ turn, rows), torch.zeros(6))


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("name", ["gram", "rkd_distance", "rkd_angle", "cka"])
def test_too_few_rows_to_compare_are_no_nan(name: str, rows: int) -> None:
    values = CASES[name][0](draw(rows, 3), draw(rows, 4, seed=1))
    assert values.shape == (rows,)
    assert values.isfinite().all()


def test_a_token_does_not_relate_to_padding_or_to_the_text_beside_it() -> None:
    student, teacher = draw(2, 5, 6), draw(2, 5, 6, seed=1)
    before = features.relation_kl(student, teacher, 2, GROUPS)
    changed = student.clone()
    changed[0, 2:] += 7.0
    changed[1, 3:] = 1e4
    after = features.relation_kl(changed, teacher, 2, GROUPS)
    assert torch.equal(before[0, :2], after[0, :2])
    assert not torch.allclose(before[0, 2:], after[0, 2:])
    assert torch.equal(before[1], after[1])
    assert not before[1, 3:].any()


def test_attention_of_different_numbers_of_heads_is_averaged_first() -> None:
    student, teacher = maps(2, 2, 5, 5), maps(2, 4, 5, 5, seed=1)
    mean = features.attention_kl(student.mean(1, keepdim=True), teacher.mean(1, keepdim=True))
    close(features.attention_kl(student, teacher), mean)
