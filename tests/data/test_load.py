"""Files to raw rows: nothing is lost, and what can't be read is said with its place."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data.load import read_raw
from stillhouse.errors import DataError

ROWS = [
    {"text": 'two\nlines, and a "quote"', "label": "a"},
    {"text": "tabs\tand ünicode \u2028 \U0001f600", "label": "b"},
    {"text": "x" * 200_000, "label": "c"},
]


def write(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    """`rows` in the kind of file that the name of `path` says."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    plain = path.with_name(path.name.removesuffix(".gz"))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), plain)
    elif kind in ("csv", "tsv"):
        with plain.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "json":
        plain.write_text(json.dumps(rows), encoding="utf-8")
    else:
        plain.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def fault(path: Path) -> str:
    with pytest.raises(DataError) as error:
        list(read_raw(path))
    return str(error.value)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_rows_that_were_written(tmp_path, kind, gz):
    assert [raw.fields for raw in read_raw(write(tmp_path / f"r.{kind}{gz}"))] == ROWS


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("r.jsonl", "r.jsonl:2"),
        ("r.csv", "r.csv:4"),
        ("r.parquet", "r.parquet: row 2"),
        ("r.json", "r.json: row 2"),
    ],
)
def test_a_row_says_the_line_it_starts_on_even_after_quoted_line_breaks(tmp_path, name, second):
    assert [raw.where for raw in read_raw(write(tmp_path / name))][1] == second


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\na,b\r\n")
    assert [raw.fields for raw in read_raw(path)] == [{"text": "a", "label": "b"}]


def test_a_text_with_paragraphs_is_one_document(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_bytes(b"one\r\n\r\ntwo\n")
    assert list(read_raw(path)) == [("poem.txt", {"text": "one\n\ntwo\n", "file": "poem.txt"})]


def test_a_folder_of_texts_is_one_document_each_in_order_and_its_readme_is_none(tmp_path):
    folder = tmp_path / "poems"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.txt", "a.md", "sub/c.txt", "README.md", ".hidden.txt"):
        (folder / name).write_text(name)
    assert [raw.fields["text"] for raw in read_raw(folder)] == ["a.md", "b.txt", "sub/c.txt"]
    assert [raw.where for raw in read_raw(folder)] == ["poems/a.md", "poems/b.txt", "poems/sub/c.txt"]


def test_a_folder_of_tables_is_read_in_the_order_of_its_names(tmp_path):
    for name, rows in (("2.jsonl", ROWS[2:]), ("1.jsonl.gz", ROWS[:2])):
        write(tmp_path / name, rows)
    assert [raw.fields for raw in read_raw(tmp_path)] == ROWS


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.jsonl")
    assert "several kinds (a.csv and b.jsonl)" in fault(tmp_path)


@pytest.mark.parametrize("split", [None, "train"])
def test_a_folder_saved_by_datasets_gives_its_rows_or_those_of_train(tmp_path, split):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    if split:
        saved = datasets.DatasetDict({"train": saved, "test": saved.select([0])})
    saved.save_to_disk(str(tmp_path / "d"))
    found = list(read_raw(tmp_path / "d"))
    assert [raw.fields for raw in found] == ROWS
    assert found[1].where == ("d/train: row 2" if split else "d: row 2")


def test_datasets_without_a_train_split_are_refused_with_the_splits_there_are(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    assert "no split 'train'; name one of its folders: test" in fault(tmp_path / "d")


FAULTS = {
    "bad_byte.jsonl": (
        b'{"text": "a"}\n{"text": "\xe9"}\n',
        "bad_byte.jsonl:2: byte 0xe9 (byte 11 of the line)",
    ),
    "bad_byte.txt": (b"ok\nok\n\xff\n", "bad_byte.txt:3: byte 0xff"),
    "broken.jsonl": (b'{"text": "a"}\n\n{"text": "b"\n', "broken.jsonl:3: not valid JSON"),
    "broken.json": (b'[{"text": "a"},\n{"text" "b"}]', "broken.json:2: not valid JSON"),
    "half.jsonl": (b'{"text": "\\ud83d"}\n', "half.jsonl:1: \\ud83d is half a character"),
    "deep.jsonl": (b"[" * 200_000 + b"\n", "deep.jsonl:1: not "),
    "digits.jsonl": (b'{"text": ' + b"1" * 5000 + b"}\n", "digits.jsonl:1: not usable JSON"),
    "list.jsonl": (b'["a"]\n', "list.jsonl:1: expected an object"),
    "object.json": (b'{"data": []}', "object.json: expected a list of objects"),
    "items.json": (b'[{"text": "a"}, 3]', "items.json: row 2: expected an object"),
    "more.csv": (b'text,label\n"a\nb",1\nb,2,3\n', "more.csv:4: the row has 3 columns and the header 2"),
    "fewer.tsv": (b"text\tlabel\na\n", "fewer.tsv:2: the row has 1 columns and the header 2"),
    "quote.csv": (b'text,label\na,1\n"b,2\nc,3\n', "quote.csv:3: the row cannot be read"),
    "twice.csv": (b"text,text\na,b\n", "twice.csv:1: the header names 'text' twice"),
    "empty.csv": (b"", "empty.csv is empty"),
    "empty.txt": (b"", "empty.txt is empty"),
    "blank.jsonl": (b"\n\n", "blank.jsonl has no rows"),
    "header.csv": (b"text,label\n", "header.csv has no rows"),
    "none.json": (b"[]", "none.json has no rows"),
    "cut.parquet": (b"PAR1abc", "cut.parquet: not a whole Parquet file"),
    "plain.jsonl.gz": (b'{"text": "a"}\n', "plain.jsonl.gz is not a whole gzip file"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "cut.jsonl.gz is not a whole gzip file"),
    "sheet.xlsx": (b"PK", "the suffix '.xlsx', which is not known here; read are .jsonl, "),
    "noname": (b"a", "the suffix '(none)'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_input_stops_the_run_with_its_place(tmp_path, name):
    content, sentence = FAULTS[name]
    (tmp_path / name).write_bytes(content)
    said = fault(tmp_path / name)
    assert sentence in said
    assert "\n" not in said


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    write(tmp_path / "reviews.csv")
    assert "does not exist. Did you mean 'reviews.csv'?" in fault(tmp_path / "review.csv")


def test_rows_stream_so_that_a_fault_far_down_does_not_hide_the_first_rows(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "a"}\n{')
    assert next(read_raw(path)).fields == {"text": "a"}
