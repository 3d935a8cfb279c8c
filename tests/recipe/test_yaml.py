"""Laws of the strict loader: PyYAML's own reading of these documents loses a run without a word."""

import time

import pytest

from stillhouse.errors import RecipeError
from stillhouse.recipe.yaml import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, parse_yaml, write_yaml


def refused(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "my.yaml")
    said = str(caught.value)
    assert said.startswith("my.yaml")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "+1e-4", "0.0001", ".0001"])
def test_every_spelling_of_a_small_number_is_a_number_and_not_text(text: str) -> None:
    value = parse_yaml(f"rate: {text}", "my.yaml")["rate"]
    assert isinstance(value, float)
    assert value == pytest.approx(1e-4)


@pytest.mark.parametrize(
    "word", ["no", "yes", "on", "off", "No", "YES", "y", "n", "e5", "1e", "1.5.2", "0x10", "0o7", "+", "="]
)
def test_words_stay_words(word: str) -> None:
    assert parse_yaml(f"a: {word}", "my.yaml") == {"a": word}


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_true_is_the_only_word_for_true(word: str) -> None:
    assert parse_yaml(f"a: {word}", "my.yaml")["a"] is True


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_all_forms_of_nothing_are_none(text: str) -> None:
    assert parse_yaml(f"a: {text}", "my.yaml") == {"a": None}


def test_a_number_with_a_leading_zero_is_not_octal() -> None:
    assert parse_yaml("a: 012\nb: 09\nc: -007\nd: 1_000", "my.yaml") == {"a": 12, "b": 9, "c": -7, "d": 1000}


@pytest.mark.parametrize("text", ["2026-01-31", "2026-01-31T10:00:00Z", "12:30", "1:30:00"])
def test_dates_and_times_stay_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "my.yaml") == {"a": text}


def test_quotes_make_text_of_anything() -> None:
    assert parse_yaml("a: '1e-4'\nb: \"null\"\nc: 'true'", "my.yaml") == {
        "a": "1e-4",
        "b": "null",
        "c": "true",
    }


def test_infinities_and_nan_are_numbers_so_that_the_schema_can_refuse_them() -> None:
    assert parse_yaml("[.inf, -.inf]", "my.yaml") == [float("inf"), -float("inf")]
    assert parse_yaml("a: .nan", "my.yaml")["a"] != parse_yaml("a: .nan", "my.yaml")["a"]


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "s:\n  x: 1\n  x: 2", "s: {x: 1, x: 2}", "l:\n  - {x: 1, x: 1}", '"a": 1\na: 2'],
)
def test_the_second_of_two_equal_keys_does_not_win_in_silence(text: str) -> None:
    assert "was given before, on line" in refused(text)


def test_a_duplicate_key_is_named_with_both_lines() -> None:
    said = refused("a: 1\nb: 2\na: 3")
    assert said.startswith("my.yaml:3:")
    assert "'a'" in said
    assert "line 1" in said


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/name:os.system",
        "!!python/object/apply:os.system",
        "!thing",
        "!!bool",
        "!!int",
        "!!str",
        "!!omap",
        "!!set",
        "!!binary",
        "!!timestamp",
        "!",
    ],
)
def test_tags_are_refused_before_anything_is_built(tag: str) -> None:
    said = refused(f"x: 1\na: {tag} [1]")
    assert said.startswith("my.yaml:2:")
    assert "tag" in said


def test_a_self_referring_alias_is_refused() -> None:
    assert "refers to itself" in refused("a: &a [1, *a]")
    assert "refers to itself" in refused("a: &a {b: {c: *a}}")


def test_depth_is_limited_long_before_the_stack_is() -> None:
    fits = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_yaml(f"a: {fits}", "my.yaml")
    assert "deeper" in refused("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert "deeper" in refused("[" * 100_000)
    assert "deeper" in refused("".join(f"{' ' * n}k{n}:\n" for n in range(MAX_DEPTH + 5)))


def test_depth_built_from_aliases_is_refused() -> None:
    half = MAX_DEPTH - 4
    assert "unfold" in refused(f"- &a {'[' * half}{']' * half}\n- {'[' * half}*a{']' * half}")


def test_a_crowd_of_aliases_is_refused() -> None:
    assert "aliases" in refused("a: &a 1\nb: [" + ", ".join(["*a"] * (MAX_ALIASES + 1)) + "]")


def test_a_few_aliases_that_unfold_to_billions_are_refused_at_once() -> None:
    lines = ["a0: &a0 [" + ", ".join(["1"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    start = time.perf_counter()
    assert "unfold" in refused("\n".join(lines))
    assert time.perf_counter() - start < 5


def test_what_an_alias_repeats_can_be_changed_in_one_place_alone() -> None:
    values = parse_yaml("a: &a {x: [1]}\nb: *a", "my.yaml")
    assert values == {"a": {"x": [1]}, "b": {"x": [1]}}
    values["a"]["x"].append(2)
    assert values["b"] == {"x": [1]}


def test_merge_keys_are_plain_keys_and_merge_nothing() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a}", "my.yaml")["b"] == {"<<": {"x": 1}}


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_says_how_to_start(text: str) -> None:
    if text == "---\n":
        assert parse_yaml(text, "my.yaml") is None
    else:
        assert "is empty" in refused(text)
        assert "stillhouse cp" in refused(text)


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "a: 1\n...\n---\nb: 2\n", "a: 1\n...\nb: 2\n"])
def test_a_second_document_is_not_dropped_in_silence(text: str) -> None:
    assert "document" in refused(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2", 2),
        ('a: "x', 1),
        ("a: b: c", 1),
        ("a: 1\n\tb: 2", 2),
        ("a: @x", 1),
        ("x: 1\na: *nobody", 2),
        ("a: 1\n b: 2", 2),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line_and_how_to_mend_it(text: str, line: int) -> None:
    said = refused(text)
    assert said.startswith(f"my.yaml:{line}:")
    assert "not valid YAML" in said
    assert "mend" in said


def test_control_characters_are_refused_in_a_sentence() -> None:
    assert "not valid YAML" in refused("a: \x00b")


def test_keys_that_are_no_words_are_refused() -> None:
    assert "plain word" in refused("[1, 2]: x")
    assert "plain word" in refused("? {a: 1}\n: x")


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert parse_yaml("\ufeffname: x", "my.yaml") == {"name": "x"}


def test_a_number_too_long_for_python_is_refused_in_a_sentence() -> None:
    assert "my.yaml" in refused("a: " + "9" * 5000)


def test_a_file_that_is_no_page_of_text_is_refused() -> None:
    assert "larger" in refused("# " + "x" * MAX_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        "1e-4",
        "no",
        "true",
        "null",
        "~",
        "",
        "012",
        "0x10",
        "2026-01-31",
        "12:30",
        "a: b",
        "# c",
        "- d",
        "*e",
        "&f",
        "!g",
        "é\n日本",
        "<<",
        "=",
        ".5",
        "1_000",
        " x ",
    ],
)
def test_text_that_looks_like_something_else_is_written_so_that_it_stays_text(text: str) -> None:
    assert parse_yaml(write_yaml({"a": text}), "my.yaml") == {"a": text}


@pytest.mark.parametrize("value", [1e-6, 1e22, 5, -3, 0.5, True, None, [], {}, [1, "1"], {"x": {"y": [0.1]}}])
def test_values_are_written_so_that_they_come_back(value: object) -> None:
    assert parse_yaml(write_yaml({"a": value}), "my.yaml") == {"a": value}
