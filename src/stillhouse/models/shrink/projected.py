"""BERT with a projection behind its embeddings, which is what ELECTRA's layers are, so that its embeddings can be narrower.

The two families read the same layers; ELECTRA has a Linear between embeddings and layers where their widths differ, and none
where they are the same.  A classifier's head is another one: dense → GELU → out where BERT has dense → tanh → out.  Its
weights are copied, and it has to learn its new bend; everything below it says what it said.
"""

import re
from typing import Any

import torch
from transformers import ElectraConfig, ElectraForSequenceClassification, PreTrainedModel

from ...errors import RecipeError

NAMES = (
    (r"^bert\.pooler\.", "classifier."),
    (r"^classifier\.", "classifier.out_proj."),
    (r"^bert\.", "electra."),
)
"""What a BERT classifier's tensors are called in ELECTRA; the first that fits."""
OWN = ("model_type", "architectures", "transformers_version")
"""Fields of a configuration that say which family it is."""


def as_electra(model: PreTrainedModel) -> PreTrainedModel:
    """An ELECTRA classifier with a BERT classifier's weights and embeddings as wide as its layers.

    Raises: RecipeError for a BERT that is no classifier of sequences.
    """
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise RecipeError(
            f"student.from_teacher.embedding_size: a {type(model).__name__} has no ELECTRA of its kind to go over to; "
            "only BERT's classifiers may have narrower embeddings, so leave it out."
        )
    known = {name: value for name, value in model.config.to_dict().items() if name not in OWN}
    with torch.random.fork_rng():
        made: Any = ElectraForSequenceClassification(
            ElectraConfig(**known, embedding_size=model.config.hidden_size)
        )
    made.load_state_dict({_renamed(name): tensor for name, tensor in model.state_dict().items()}, strict=True)
    result: PreTrainedModel = made.to(model.dtype).eval()
    return result


def _renamed(name: str) -> str:
    for pattern, ours in NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name, count=1)
    raise RecipeError(
        f"student.from_teacher.embedding_size: this BERT has a weight {name} that ELECTRA has not; leave it out."
    )
