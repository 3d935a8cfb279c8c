"""What the layers hand on: hidden states, attention, and how things relate to one another.

Shapes: M tokens, B rows of T tokens, H width, h heads.  Values are plain numbers, not nats; they are weighed against the
other terms by the user.  Projectors are the caller's: both sides come in with the same width where that is needed.
"""

import torch
from torch import Tensor

EPSILON = 1e-8
"""Against division by nothing."""


def hidden_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference.  Source: Romero et al. 2014 (FitNets), arXiv:1412.6550; TinyBERT, arXiv:1909.10351.

    Args: student, teacher: [M, H].
    Returns: [M]; 0 iff equal.
    """
    return (student.float() - teacher.float()).square().mean(-1)


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine.  Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108.

    Args: student, teacher: [M, H].
    Returns: [M], in [0, 2]; 0 iff they point the same way.
    """
    return 1.0 - torch.cosine_similarity(student.float(), teacher.float(), dim=-1)


def hidden_normalised(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the states scaled to length 1.  Source: Sun et al. 2019 (PKD), arXiv:1908.09355.

    Args: student, teacher: [M, H].
    Returns: [M], in [0, 4]; 0 iff they point the same way.
    """
    return (_unit(student.float()) - _unit(teacher.float())).square().sum(-1)


def attention_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each position's attention, mean over heads.  Source: Wang et al. 2020 (MiniLM), arXiv:2002.10957.

    Where the numbers of heads differ, both are averaged over their heads first.

    Args: student, teacher: [B, h, T, T], rows adding up to 1.
    Returns: [B, T], nats, ≥ 0.
    """
    q, p = _same_heads(student.float(), teacher.float())
    log_ratio = torch.where(p > 0, p.clamp_min(EPSILON).log() - q.clamp_min(EPSILON).log(), 0.0)
    return (p * log_ratio).sum(-1).mean(1)


def attention_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of each position's attention, mean over heads.  Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351.

    Args: student, teacher: [B, h, T, T].
    Returns: [B, T].
    """
    q, p = _same_heads(student.float(), teacher.float())
    return (q - p).square().sum(-1).mean(1)


def relation_kl(student: Tensor, teacher: Tensor, heads: int, groups: Tensor) -> Tensor:
    """KL of how each token relates to the others of its text: softmax of scaled products among queries, keys or values.

    Widths and numbers of heads may differ: each side's vectors are cut into `heads` relation heads of its own width.
    Source: Wang et al. 2020 (MiniLMv2), arXiv:2012.15828, equations 2 to 5.

    Args: student: [B, T, Hs]; teacher: [B, T, Ht], both divisible by `heads`; groups: [B, T], tokens relate to those of
        the same number, and −1 to none.
    Returns: [B, T], nats, mean over the relation heads; ≥ 0, 0 for tokens of no group.
    """
    apart = (groups.unsqueeze(-1) != groups.unsqueeze(-2)) | (groups < 0).unsqueeze(-1)
    log_q, log_p = (_relations(side, heads, apart) for side in (student, teacher))
    p = log_p.exp()
    nats = (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1).mean(1)
    return torch.where(groups >= 0, nats, 0.0)


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of each row's similarities to all rows, scaled to length 1.  Source: Tung & Mori 2019, arXiv:1907.09682.

    Args: student: [B, Hs]; teacher: [B, Ht].
    Returns: [B], in [0, 4].
    """
    mine, theirs = (_unit(side.float() @ side.float().T) for side in (student, teacher))
    return (mine - theirs).square().sum(-1)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances between rows, each side's divided by their mean.  Source: Park et al. 2019 (RKD), arXiv:1904.05068.

    Args: student: [B, Hs]; teacher: [B, Ht].
    Returns: [B], each row's mean over the others; 0 for a single row.
    """
    mine, theirs = (_distances(side.float()) for side in (student, teacher))
    others = max(len(student) - 1, 1)
    return torch.nn.functional.smooth_l1_loss(mine, theirs, reduction="none").sum(-1) / others


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles at each row between all pairs of others.  Source: Park et al. 2019 (RKD), arXiv:1904.05068.

    Args: student: [B, Hs]; teacher: [B, Ht].
    Returns: [B], each row's mean over the pairs; 0 for fewer than three rows.
    """
    mine, theirs = (_angles(side.float()) for side in (student, teacher))
    pairs = max((len(student) - 1) * (len(student) - 2), 1)
    return torch.nn.functional.smooth_l1_loss(mine, theirs, reduction="none").sum((-1, -2)) / pairs


def cka(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − linear CKA of the rows, the same number for each.  Source: Kornblith et al. 2019, arXiv:1905.00414, equation 3.

    Args: student: [B, Hs]; teacher: [B, Ht].
    Returns: [B], in [0, 1]; 0 iff one is the other turned and scaled.
    """
    mine, theirs = (side.float() - side.float().mean(0) for side in (student, teacher))
    crossed = (mine.T @ theirs).square().sum()
    own = (mine.T @ mine).norm() * (theirs.T @ theirs).norm()
    alike: Tensor = crossed / own.clamp_min(EPSILON)
    return (1.0 - alike).expand(len(student))


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1, eps=EPSILON)


def _same_heads(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    return student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)


def _relations(x: Tensor, heads: int, apart: Tensor) -> Tensor:
    """log softmax of each token's scaled products with the tokens of its group, [B, heads, T, T]."""
    split = x.float().reshape(*x.shape[:2], heads, -1).transpose(1, 2)
    products = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    return torch.log_softmax(products.masked_fill(apart.unsqueeze(1), -1e30), dim=-1)


def _distances(rows: Tensor) -> Tensor:
    """[B, B] distances over their mean; the diagonal is 0."""
    squared = (rows.unsqueeze(0) - rows.unsqueeze(1)).square().sum(-1)
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    far = torch.where(own, 0.0, torch.where(own, 1.0, squared).clamp_min(EPSILON).sqrt())
    count = max(len(rows) * (len(rows) - 1), 1)
    return far / (far.sum() / count).clamp_min(EPSILON)


def _angles(rows: Tensor) -> Tensor:
    """[B, B, B] cosine at row i between rows j and k; 0 where two of them are the same row."""
    ways = _unit(rows.unsqueeze(0) - rows.unsqueeze(1))  # [i, j] from i to j
    cosines = ways @ ways.transpose(-1, -2)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return cosines.masked_fill(same.unsqueeze(0) | same.unsqueeze(1) | same.unsqueeze(2), 0.0)
