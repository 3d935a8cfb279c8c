"""Names of the sets that are made of the source's held-out rows: as they are, changed, or answered by a teacher that was asked."""

PARAPHRASE = "paraphrase"
"""The one change that a model writes (`steps.variants`)."""
KINDS = ("typos", "capitals", "drop_words", "longer", PARAPHRASE)
"""Changes that `evaluate.perturb` may name."""
CHANGED = tuple(f"eval_{kind}" for kind in KINDS)
SWAPPED = "eval_swapped"
HALVES, UNSWAPPED = "eval_halves", "eval_unswapped"
"""What changed plain texts are compared with, in the place of `eval`: the same pieces of text as they are."""
BY_TEACHER = "_by_teacher"
"""Ends the name of a set whose answers a teacher was asked for, where the data has its own."""
MADE = (*CHANGED, SWAPPED, HALVES, UNSWAPPED, f"eval{BY_TEACHER}")
"""All but `eval` itself."""
