"""`python:reference`: what Python brings along, as a file that is read like any other."""

import json

from ..errors import ResourceError
from ..files import hash_bytes, write_text
from ..reference import LICENCE, NAME, SOURCE, passages
from .address import Local, cache_dir


def resolve_reference() -> Local:
    """The passages of this Python's language reference, in the cache under their own sum.

    Raises: ResourceError if the cache cannot be written.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in passages())
    content = hash_bytes(text.encode())
    path = cache_dir() / "python" / f"{NAME}-{content[:12]}.jsonl"
    try:
        if not path.exists() or hash_bytes(path.read_bytes()) != content:
            write_text(path, text)
    except OSError as error:
        raise ResourceError(
            f"{cache_dir()}: cannot be written ({error}); set STILLHOUSE_CACHE to another folder."
        ) from error
    return Local(path, f"{SOURCE} sha256={content}", LICENCE)
