"""A family's table laid over one model: how large it would be in another shape.  No weights are read, and no torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...errors import RecipeError
from .families import Family, family_of, part_of

FIELDS = ("heads", "kv_heads", "intermediate_size", "hidden_size", "embedding_size")
"""What of a shape is one number; a recipe has the same names."""


@dataclass(frozen=True)
class Shape:
    """The size of everything that can be cut."""

    layers: tuple[int, ...]
    """Of each stack."""
    heads: int
    kv_heads: int
    intermediate_size: int
    hidden_size: int
    embedding_size: int
    """Equal to the hidden width, where the family knows no other."""

    def said(self) -> dict[str, Any]:
        """For a person, and for results.json."""
        layers = self.layers[0] if len(self.layers) == 1 else list(self.layers)
        sizes = {name: getattr(self, name) for name in FIELDS}
        if self.embedding_size == self.hidden_size:
            del sizes["embedding_size"]
        return {"layers": layers, **sizes}


@dataclass(frozen=True)
class Skeleton:
    """What a model is made of: products of axes, counted."""

    family: Family
    shape: Shape
    """The model's own."""
    head_width: int
    vocabulary: int
    outside: Counter[str]
    """Axes of a tensor outside the layers -> how many numbers each combination of them has."""
    inside: tuple[Counter[str], ...]
    """The same for all layers of each stack."""

    @classmethod
    def of(cls, config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> "Skeleton":
        """Args: config: as in config.json.  tensors: name -> shape, tied ones once."""
        family = family_of(dict(config))
        shape = _own_shape(family, config)
        width = config.get(family.head_width) if family.head_width else None
        head_width = int(width or shape.hidden_size // shape.heads)
        outside: Counter[str] = Counter()
        inside: tuple[Counter[str], ...] = tuple(Counter() for _ in family.stacks)
        vocabulary = 0
        for name, sizes in tensors.items():
            part = part_of(name, len(sizes), family)
            counts = prod(
                size for axis, size in zip(part.axes, sizes, strict=True) if axis in ".V"
            )  # what stays as it is
            axes = "".join(axis for axis in part.axes if axis not in ".V")
            if "V" in part.axes:
                vocabulary = max(vocabulary, sizes[part.axes.index("V")])
            if part.stack is None or (family.shared_bias and family.shared_bias in name):
                outside[axes] += counts
            else:
                inside[family.stacks.index(part.stack)][axes] += counts
        return cls(family, shape, head_width, vocabulary, outside, inside)

    def reshaped(self, shape: Shape) -> "Skeleton":
        """The skeleton of a student of that shape."""
        inside = tuple(
            Counter({axes: number * kept // had for axes, number in counts.items()})
            for counts, kept, had in zip(self.inside, shape.layers, self.shape.layers, strict=True)
        )
        return replace(self, shape=shape, inside=inside)

    def parameters(self, shape: Shape) -> int:
        """Of a model of that shape, tied ones counted once."""
        projection = 0
        if (
            self.follows and shape.embedding_size != shape.hidden_size
        ):  # it comes with the narrower embeddings
            projection = shape.embedding_size * shape.hidden_size + shape.hidden_size
        return self._sum(self.outside, shape) + self._layers(shape) + projection

    def work(self, shape: Shape, head: bool) -> int:
        """Weights that a token is multiplied with, which is what its seconds are about.

        Args: head: whether the model says a distribution over the vocabulary.
        """
        return self._layers(shape) + (self.vocabulary * shape.hidden_size if head else 0)

    def memory(self, shape: Shape, context: int) -> int:
        """Bytes of float32 weights and of the keys and values of `context` tokens."""
        cache = 2 * sum(shape.layers) * shape.kv_heads * self.head_width * context
        return 4 * (self.parameters(shape) + cache)

    @property
    def tied_heads(self) -> bool:
        """Whether a head's width is the hidden width divided by the heads, so that one cannot be cut without the other."""
        return self.family.head_width is None

    def loads(self, hidden: int, heads: int) -> bool:
        """Whether transformers saves and loads a model of this family that is so wide and has so many heads."""
        return not self.family.even_heads or hidden % heads == 0

    @property
    def follows(self) -> bool:
        """Whether the embeddings are as wide as the layers, with no projection between them."""
        return self.shape.embedding_size == self.shape.hidden_size

    def _layers(self, shape: Shape) -> int:
        each = zip(self.inside, shape.layers, self.shape.layers, strict=True)
        return sum(self._sum(counts, shape) * kept // had for counts, kept, had in each)

    def _sum(self, counts: Counter[str], shape: Shape) -> int:
        sizes = {
            "H": shape.hidden_size,
            "E": shape.embedding_size,
            "M": shape.intermediate_size,
            "Q": shape.heads * self.head_width,
            "K": shape.kv_heads * self.head_width,
            "A": shape.heads,
        }
        return sum(number * prod(sizes[axis] for axis in axes) for axes, number in counts.items())

    def wanted(self, layers: tuple[int, ...] | None = None, **sizes: int | None) -> Shape:
        """The model's own shape with some sizes changed, and what follows from them.

        Raises: RecipeError that names the field, for more than the model has or for sizes that do not fit together.
        """
        given = {name: size for name, size in sizes.items() if size is not None}
        self._check_has(layers, given)
        if self.tied_heads:
            given = self._with_tied_heads(given)
        elif "heads" in given and "kv_heads" not in given:
            given["kv_heads"] = self._groups_for(given["heads"])
        if self.follows and "embedding_size" not in given:
            given["embedding_size"] = given.get("hidden_size", self.shape.hidden_size)
        shape = replace(self.shape, layers=layers or self.shape.layers, **given)
        if shape.heads % shape.kv_heads:
            raise RecipeError(
                f"student.from_teacher.heads: {shape.heads} heads cannot share {shape.kv_heads} keys and values evenly; "
                "make heads a multiple of kv_heads."
            )
        most = self.shape.heads // self.shape.kv_heads * (self.shape.kv_heads // shape.kv_heads)
        if shape.heads // shape.kv_heads > most:
            raise RecipeError(
                f"student.from_teacher.heads: {shape.kv_heads} merged keys and values have at most {most} heads each; keep "
                f"at most {most * shape.kv_heads} heads, or more kv_heads."
            )
        if not self.loads(shape.hidden_size, shape.heads):
            raise RecipeError(
                f"student.from_teacher.heads: transformers loads this family only where hidden_size is a multiple of heads, and "
                f"{shape.hidden_size} is none of {shape.heads}; change one of them."
            )
        if self.follows and shape.embedding_size > shape.hidden_size:
            raise RecipeError(
                f"student.from_teacher.embedding_size: the layers are {shape.hidden_size} wide, and nothing can be gained by "
                f"embeddings of {shape.embedding_size}; ask for fewer."
            )
        if not self.follows and shape.embedding_size == shape.hidden_size:
            raise RecipeError(
                f"student.from_teacher.hidden_size: with embeddings of {shape.embedding_size} too this family would have no "
                "projection between them, and the teacher has one; choose another hidden_size or embedding_size."
            )
        return shape

    def _check_has(self, layers: tuple[int, ...] | None, given: dict[str, int]) -> None:
        for stack, keep, have in zip(
            self.family.stacks, layers or self.shape.layers, self.shape.layers, strict=True
        ):
            if keep > have:
                raise RecipeError(
                    f"student.from_teacher.layers: the teacher has only {have} layers"
                    f"{f' in its {stack.name}' if len(self.family.stacks) > 1 else ''} (0 to {have - 1})."
                )
        for name, size in given.items():
            if size > (have := getattr(self.shape, name)):
                raise RecipeError(
                    f"student.from_teacher.{name}: the teacher has only {have:,}; ask for fewer."
                )
        if (
            self.family.fixed_width
            and given.get("hidden_size", self.shape.hidden_size) < self.shape.hidden_size
        ):
            raise RecipeError(
                f"student.from_teacher.hidden_size: cannot be cut for this family, since {self.family.fixed_width}; "
                "cut layers, heads or intermediate_size."
            )
        if "embedding_size" in given and self.family.embedding is None and not self.family.projected:
            raise RecipeError(
                "student.from_teacher.embedding_size: this family has no projection behind its embeddings, so they are "
                "as wide as its layers (ELECTRA's and BERT's may be narrower); leave it out."
            )

    def _with_tied_heads(self, given: dict[str, int]) -> dict[str, int]:
        """Heads and hidden width of a family that knows only their quotient, each from the other."""
        heads = given.get("heads")
        hidden = given.get(
            "hidden_size", self.shape.hidden_size if heads is None else heads * self.head_width
        )
        if hidden % self.head_width or (heads is not None and heads * self.head_width != hidden):
            raise RecipeError(
                f"student.from_teacher.hidden_size: this family's heads are hidden_size ÷ heads wide, {self.head_width} here; "
                f"{hidden} needs {hidden / self.head_width:.3g} heads, so give a multiple of {self.head_width} and leave heads out."
            )
        number = hidden // self.head_width
        return {**given, "hidden_size": hidden, "heads": number, "kv_heads": number}

    def _groups_for(self, heads: int) -> int:
        """Keys and values for that many heads: all of them if they can share evenly, else whole groups go."""
        groups = self.shape.kv_heads
        size = self.shape.heads // groups
        if heads % groups == 0:
            return groups
        if heads % size == 0:
            return heads // size
        raise RecipeError(
            f"student.from_teacher.heads: the teacher has {groups} groups of {size} heads; keep a multiple of {groups} or "
            f"of {size}, or give kv_heads too, not {heads}."
        )


def _own_shape(family: Family, config: Mapping[str, Any]) -> Shape:
    first = family.stacks[0]
    for stack in family.stacks:
        for name in ("heads", "neurons"):
            one, other = (config[getattr(of, name)] for of in (first, stack))
            if one != other:
                raise RecipeError(
                    f"student.from_teacher: {first.name} and {stack.name} differ in {name} ({one} and {other}), which is not "
                    "supported; keep whole layers alone."
                )
    layers = tuple(_layers(config, stack.count, first.count) for stack in family.stacks)
    heads, hidden = int(config[first.heads]), int(config[family.hidden])
    return Shape(
        layers=layers,
        heads=heads,
        kv_heads=int((config.get(first.kv_heads) if first.kv_heads else None) or heads),
        intermediate_size=int(config[first.neurons]),
        hidden_size=hidden,
        embedding_size=int((config.get(family.embedding) if family.embedding else None) or hidden),
    )


def _layers(config: Mapping[str, Any], count: str, first: str) -> int:
    """A stack's layers; T5 files leave the decoder's out where they are as many as the encoder's."""
    return int(config.get(count) or config[first])
