"""Files -> raw rows, one at a time, each with the place it came from.

A file that is not what it says it is stops the run with its line: nothing is guessed, skipped or repaired, so that
bad input loses no row in silence.  Rows that are well-formed but of no use are dropped further on, and counted there.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..registry import did_you_mean


class Raw(NamedTuple):
    """A row as it stands in its file."""

    where: str
    """"reviews.csv:17" (the 1-based line it starts on), "reviews.parquet: row 17", or "poem.txt"."""
    fields: dict[str, Any]
    """Column -> value.  A text document has `text` and `file`, its name."""


Stream = gzip.GzipFile | io.BufferedReader
Reader = Callable[[Stream, str], Iterator[Raw]]


def read_raw(path: Path) -> Iterator[Raw]:
    """The rows of a file, of a folder of files of one kind, or of a folder that `datasets` saved, in their order.

    Raises: DataError, while reading, if something is missing, empty, malformed, not UTF-8, or of an unknown kind.
    """
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path} does not exist.{did_you_mean(path.name, beside)}")
    if path.is_file():
        yield from _file(path, path.name)
    elif any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        yield from _saved_dataset(path)
    else:
        files = _files_of_one_kind(path)
        for file in files:
            name = f"{path.resolve().name}/{file.relative_to(path).as_posix()}"
            yield from _file(file, name, len(files) > 1)


def _files_of_one_kind(folder: Path) -> list[Path]:
    """The data files in and under `folder`, sorted; hidden files, README* and LICENSE* are not data."""
    files = [
        path for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.name.upper().startswith(("README", "LICENSE"))
    ]  # fmt: skip
    if not files:
        raise DataError(f"{folder} holds no data files; {READS}.")
    first = files[0]
    for other in files[1:]:
        if _reader(other) is not _reader(first):
            raise DataError(
                f"{folder} holds files of several kinds ({first.name} and {other.name}); keep those of one kind in "
                "a folder of their own, or name a single file."
            )
    return files


def _suffix(path: Path) -> str:
    """The suffix that says the kind: ".csv" for "a.CSV" and for "a.csv.gz"."""
    name = path.name.lower().removesuffix(".gz")
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def _reader(path: Path) -> Reader:
    """What reads `path`, by its suffix."""
    if (suffix := _suffix(path)) not in READERS:
        raise DataError(f"{path} has the suffix {suffix or '(none)'!r}, which is not known here; {READS}.")
    return READERS[suffix]


def _file(path: Path, name: str, one_of_many: bool = False) -> Iterator[Raw]:
    """The rows of one file, called `name` in messages.  One of many text documents may be empty; a file may not."""
    reader, rows = _reader(path), 0
    if path.stat().st_size == 0 and not (one_of_many and reader is _document):
        raise DataError(f"{name} is empty; write the rows again, or name another file.")
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as handle:
        try:
            for raw in reader(handle, name):
                rows += 1
                yield raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{name} is not a whole gzip file ({error}); compress or download it again."
            ) from error
    if not rows:
        raise DataError(f"{name} has no rows; write the rows again, or name another file.")


def _lines(handle: Stream, name: str) -> Iterator[str]:
    """The lines of a UTF-8 file, with their ends; a byte-order mark is taken off."""
    for number, line in enumerate(handle, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: byte 0x{line[error.start]:02x} (byte {error.start + 1} of the line) is not UTF-8; "
                "save the file as UTF-8 (iconv -f latin1 -t utf-8, if it is Latin-1)."
            ) from error
        yield text


def _parse(text: str, name: str, line: int | None) -> Any:
    """The JSON value of `text`; `line` is the one it stands on, or None if `text` is the whole file."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}:{line or error.lineno}"
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at column {error.colno}); mend the line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}:{line or 1}: not usable JSON ({error}); mend the line.") from error
    if "\\ud" in text or "\\uD" in text:
        _refuse_half_characters(value, f"{name}:{line or 1}")
    return value


def _refuse_half_characters(value: Any, where: str) -> None:
    """Stop at an escape such as \\ud83d without its other half: it is no character, and can't be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(f"{where}: {half} is half a character; write both halves, or take it out.") from error


def _json_lines(handle: Stream, name: str) -> Iterator[Raw]:
    """One JSON object a line; blank lines separate nothing."""
    for number, line in enumerate(_lines(handle, name), 1):
        if line.strip():
            fields = _parse(line, name, number)
            if not isinstance(fields, dict):
                raise DataError(f"{name}:{number}: expected an object {{...}}, not {line.strip()[:40]!r}.")
            yield Raw(f"{name}:{number}", fields)


def _json_list(handle: Stream, name: str) -> Iterator[Raw]:
    """A JSON list of objects."""
    rows = _parse("".join(_lines(handle, name)), name, None)
    if not isinstance(rows, list):
        raise DataError(
            f"{name}: expected a list of objects [{{...}}, ...]; for one object a line, name the file .jsonl."
        )
    for number, fields in enumerate(rows, 1):
        if not isinstance(fields, dict):
            raise DataError(f"{name}: row {number}: expected an object {{...}}, not {str(fields)[:40]!r}.")
        yield Raw(f"{name}: row {number}", fields)


def _csv(handle: Stream, name: str) -> Iterator[Raw]:
    """Comma-separated, with a header; quoted fields may hold line breaks."""
    return _table(handle, name, ",")


def _tsv(handle: Stream, name: str) -> Iterator[Raw]:
    """Tab-separated, with a header; quoted fields may hold line breaks."""
    return _table(handle, name, "\t")


def _table(handle: Stream, name: str, delimiter: str) -> Iterator[Raw]:
    csv.field_size_limit(
        max(csv.field_size_limit(), 2**31 - 1)
    )  # the default, 131,072 characters, is a short story
    reader = csv.reader(_lines(handle, name), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{name}:{start}: the row cannot be read ({error}); write a quote inside a quoted field as two quotes."
            ) from error
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = cells
            if twice := sorted({column for column in cells if cells.count(column) > 1}):
                raise DataError(
                    f"{name}:{start}: the header names {twice[0]!r} twice; rename one of the columns."
                )
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{name}:{start}: the row has {len(cells)} columns and the header {len(header)}; "
                "put fields that hold the separator in quotes."
            )
        yield Raw(f"{name}:{start}", dict(zip(header, cells, strict=True)))


def _document(handle: Stream, name: str) -> Iterator[Raw]:
    """One text document."""
    text = "".join(_lines(handle, name)).replace("\r\n", "\n")
    yield Raw(name, {"text": text, "file": name})


def _parquet(handle: Stream, name: str) -> Iterator[Raw]:
    """The rows of a Parquet file, a batch at a time."""
    number = 0
    try:
        batches = pq.ParquetFile(handle).iter_batches(batch_size=1024)
        for number, fields in enumerate((fields for batch in batches for fields in batch.to_pylist()), 1):
            yield Raw(f"{name}: row {number}", fields)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{name}: not a whole Parquet file ({reason}); write or download it again."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: after row {number}: a string is not UTF-8; write it again as UTF-8."
        ) from error


def _saved_dataset(folder: Path) -> Iterator[Raw]:
    """The rows of a folder written by `datasets` save_to_disk; of several splits, `train`."""
    import datasets

    name = folder.resolve().name
    try:
        found = datasets.load_from_disk(str(folder))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{name}: `datasets` cannot read the folder ({error}); save it again.") from error
    if isinstance(found, datasets.DatasetDict):
        if "train" not in found:
            raise DataError(
                f"{name} has no split 'train'; name one of its folders: {', '.join(sorted(found))}."
            )
        found, name = found["train"], f"{name}/train"
    number = 0
    tables = found.with_format("arrow").iter(batch_size=1024)
    for number, fields in enumerate((fields for table in tables for fields in table.to_pylist()), 1):
        yield Raw(f"{name}: row {number}", fields)
    if not number:
        raise DataError(f"{name} has no rows; save it again, or name another folder.")


READERS: dict[str, Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _document,
    ".md": _document,
}

READS = f"read are {', '.join(READERS)}, the same with .gz, and folders of them or saved by `datasets`"
