"""What a teacher reads before a row and the student does not, from a column of the row."""

from ..errors import DataError
from .formats import value_of
from .load import Raw


def context_of(raw: Raw, format: str, column: str) -> str:
    """The text in `column`.  Raises: DataError for a row without it, and for plain text, whose rows share sequences."""
    if format == "text":
        raise DataError(
            f"{raw.where}: plain text is cut and joined to sequences, which have no context of their own; give rows with prompt or "
            "messages, or one teacher.context for all."
        )
    said = value_of(raw, column, "teacher.context")
    if not isinstance(said, str) or not said.strip():
        raise DataError(
            f"{raw.where}: {column}, from which teacher.context is taken, holds no text; fill it, or remove the row."
        )
    return said
