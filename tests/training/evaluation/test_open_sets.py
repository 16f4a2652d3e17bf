"""Word problems in other people's formats; every problem here was made up for these tests."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from ingle.training.evaluation.open_sets import OpenSetError, final_number, judge, read_open_set

GSM8K = [
    {"question": "Ann has 3 jars of 400 beans and gives 1 jar away. How many beans are left? ",
     "answer": "She keeps 3-1=<<3-1=2>>2 jars.\n2*400=<<2*400=800>>800 beans\n#### 800"},
    {"question": "A bike costs $1,250 and a bell $10. What do they cost?",
     "answer": "1250+10=<<1250+10=1260>>1,260\n#### 1,260"},
    {"question": "It is 4 degrees and falls by 9. What is it then?", "answer": "4-9\n#### -5"},
]  # fmt: skip
SVAMP = [
    {"ID": "x-1", "Body": "Tom had 9 pens. He lost 4 of them.", "Question": "How many are left?",
     "Equation": "( 9.0 - 4.0 )", "Answer": 5.0, "Type": "Subtraction"},
    {"ID": "x-2", "Body": "A rope of 5 metres is cut in two", "Question": "How long is one part?",
     "Answer": "2.5"},
]  # fmt: skip


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_gsm8k_is_read_with_its_gold_numbers(tmp_path: Path) -> None:
    problems = read_open_set("gsm8k", jsonl(tmp_path / "x", GSM8K), 10, seed=0)
    assert [p.gold["number"] for p in problems] == [800, 1260, -5]
    assert problems[0].question.endswith("How many beans are left?")
    assert "<<" not in problems[0].question + problems[0].answer  # the working is never shown
    assert [p.key for p in problems] == ["gsm8k:1", "gsm8k:2", "gsm8k:3"]


@pytest.mark.parametrize("as_list", [True, False])
def test_svamp_is_read_as_a_list_and_as_lines(tmp_path: Path, as_list: bool) -> None:
    path = tmp_path / "svamp.json"
    if as_list:
        path.write_text(json.dumps(SVAMP, indent=1), "utf-8-sig")  # a mark of byte order, too
    else:
        jsonl(path, SVAMP)
    problems = read_open_set("svamp", path, 10, seed=0)
    assert [p.gold["number"] for p in problems] == [5, Fraction(5, 2)]
    assert problems[0].question == "Tom had 9 pens. He lost 4 of them. How many are left?"


def test_the_seed_draws_the_problems(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i}?", "answer": f"#### {i}"} for i in range(50)]
    path = jsonl(tmp_path / "x", rows)
    drawn = [p.key for p in read_open_set("many", path, 10, seed=1)]
    assert len(set(drawn)) == 10
    assert drawn == [p.key for p in read_open_set("many", path, 10, seed=1)]
    assert drawn != [p.key for p in read_open_set("many", path, 10, seed=2)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("She makes $18 every day.", 18),
        ("9 * 2 = 18", 18),
        ("So it is **1,260**.", 1260),
        ("= 70000.00", 70000),
        ("The answer is -5", -5),
        ("It is \u22125 degrees.", -5),
        ("16-3", 3),  # a subtraction, no negative number
        ("x = 12-(-4", -4),
        ("2.50 dollars", Fraction(5, 2)),
        ("#### 18\nThat took 2 steps.", 2),  # behind the mark, the last one
        ("3 steps #### 18", 18),
        ("18 ####", 18),
        ("1,2345", 2345),  # no thousands
        ("eighteen", None),
        ("", None),
        ("7" * 5000, None),
    ],
)
def test_the_final_number(text: str, number: int | Fraction | None) -> None:
    assert final_number(text) == number


def test_answers_are_judged_exactly(tmp_path: Path) -> None:
    beans, bike, cold = read_open_set("gsm8k", jsonl(tmp_path / "x", GSM8K), 3, seed=0)
    assert judge(bike, "They cost $1,260.00 together.").score == 1.0
    assert judge(bike, "1260.5").score == 0.0
    assert judge(cold, "5").reason == "5 is not -5."
    assert judge(beans, "I do not know.").reason == "The answer has no number."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "a", "answer": "#### 1"}\nnot json\n', "Line 2"),
        ('{"question": "a", "answer": "1"}\n', "Problem 1 of s"),
        ('{"question": "a", "answer": "#### one"}\n', "Problem 1 of s"),
        ('{"question": "a", "answer": "#### 1/0"}\n', "Problem 1 of s"),
        ('{"question": 5, "answer": "#### 1"}\n', "Problem 1 of s"),
        ('{"Body": "a", "Question": "b"}\n', "Problem 1 of s"),
        ("[1, 2]", "Problem 1 of s"),
        ("[1, 2", "no JSON list"),
        ("[" * 100_000, "no JSON list"),
        ('{"a":' * 100_000, "Line 1"),
        ('{"question": "a", "answer": "#### 1e200000"}\n', "Problem 1 of s"),
        ("\n", "holds no problem"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(OpenSetError, match=said):
        read_open_set("s", path, 5, seed=0)


@pytest.mark.parametrize("mark", ["\u2028", "\x85"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, mark: str) -> None:
    """Python's splitlines knows more ends, and JSON holds these as they are."""
    row = {"question": f"One{mark}two?", "answer": "#### 3"}
    path = tmp_path / "x"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\r\n", "utf-8", newline="")
    assert read_open_set("s", path, 5, seed=0)[0].question == f"One{mark}two?"


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpenSetError, match="cannot be read"):
        read_open_set("s", tmp_path / "none", 5, seed=0)
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OpenSetError, match="cannot be read"):
        read_open_set("s", tmp_path / "x", 5, seed=0)
