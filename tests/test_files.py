"""Files are whole or not there, and a manifest notices anything."""

import json
import os
from pathlib import Path

import pytest

from stillhouse.files import (
    atomic,
    atomic_folder,
    hash_file,
    hash_json,
    hash_path,
    manifest_fault,
    read_json,
    read_jsonl,
    sweep_parts,
    write_json,
    write_jsonl,
    write_manifest,
    write_text,
)


def half(writing, name: str) -> None:
    """Begin to write, and fail."""
    with writing as part:
        (part / name).write_text("half")
        raise ZeroDivisionError


def test_a_write_that_fails_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        half(atomic(path), "")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_new_file_is_not_there_before_it_is_whole_and_flushed(tmp_path, monkeypatch):
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (happened.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(
        Path, "replace", lambda one, other: (happened.append("rename"), replace(one, other))[1]
    )
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert happened == ["fsync", "rename", "fsync"]


def test_a_folder_that_fails_in_the_middle_leaves_the_old_one(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "f") as part:
            (part / "x").write_text(content)
    assert (tmp_path / "f" / "x").read_text() == "new"
    with pytest.raises(ZeroDivisionError):
        half(atomic_folder(tmp_path / "f"), "x")
    assert (tmp_path / "f" / "x").read_text() == "new"
    assert manifest_fault(tmp_path / "f") is None
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / ".a.0badf00d.part").write_text("half")
    (tmp_path / ".b.0badf00d.part").mkdir()
    (tmp_path / ".b.0badf00d.part" / "x").write_text("half")
    (tmp_path / "c.part").write_text("somebody's own")
    (tmp_path / ".hidden").write_text("somebody's own")
    sweep_parts(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "c.part"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "a.bin").write_bytes(bytes(range(200)))
    (tmp_path / "f" / "sub" / "b.txt").write_text("words")
    (tmp_path / "f" / "empty").write_bytes(b"")
    write_manifest(tmp_path / "f")
    assert manifest_fault(tmp_path / "f") is None
    return tmp_path / "f"


@pytest.mark.parametrize("name", ["a.bin", "sub/b.txt", "empty"])
def test_a_manifest_notices_bytes_lost_added_changed_and_files_gone(folder, name):
    path = folder / name
    content = path.read_bytes()
    changes = [content + b"!", None] + ([content[:-1], b"?" + content[1:]] if content else [])
    for changed in changes:
        path.unlink() if changed is None else path.write_bytes(changed)
        assert name in (manifest_fault(folder) or "")
        path.write_bytes(content)
        assert manifest_fault(folder) is None


def test_a_manifest_notices_a_file_that_was_not_there(folder):
    (folder / "sub" / "more").write_text("")
    assert "sub/more was not there" in (manifest_fault(folder) or "")


def test_a_cut_or_missing_manifest_is_a_fault_and_never_an_exception(folder):
    path = folder / "MANIFEST.json"
    content = path.read_bytes()
    for length in range(len(content) - 1):
        path.write_bytes(content[:length])
        assert manifest_fault(folder) is not None
    path.unlink()
    assert manifest_fault(folder) is not None


@pytest.mark.parametrize("bit", [0, 1, 4, 6])
def test_a_bit_flipped_anywhere_in_a_manifest_is_a_fault_and_never_an_exception(folder, bit):
    path = folder / "MANIFEST.json"
    content = path.read_bytes()
    whole = json.loads(content)
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        fault = manifest_fault(folder)
        try:
            harmless = json.loads(path.read_bytes()) == whole  # white space
        except ValueError:
            harmless = False
        assert harmless or fault is not None, f"byte {at}"


def test_hashes_follow_content_and_names_and_not_the_order_of_keys_or_of_the_disk(tmp_path):
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": "1"}) != hash_json({"a": 1.5})
    for name, order in (("one", "xy"), ("two", "yx")):
        (tmp_path / name).mkdir()
        for file in order:
            (tmp_path / name / file).write_text(file)
    assert hash_path(tmp_path / "one") == hash_path(tmp_path / "two")
    (tmp_path / "two" / "x").rename(tmp_path / "two" / "z")
    assert hash_path(tmp_path / "one") != hash_path(tmp_path / "two")
    assert hash_path(tmp_path / "one" / "x") == hash_file(tmp_path / "one" / "x")


def test_json_that_is_no_json_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"a": bad})
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_rows_come_back_as_they_were_whatever_characters_they_hold(tmp_path):
    rows = [{"text": "naïve\u2028東京\n🦊", "n": number} for number in range(3)]
    assert write_jsonl(tmp_path / "a.jsonl", iter(rows)) == 3
    assert read_jsonl(tmp_path / "a.jsonl") == rows
