"""Parsing takes linear time, whatever the model writes and however it is cut."""

from __future__ import annotations

import time

import pytest

from ingle.prompt.encoder import CALL, CALLS, END_THINK, SEP
from ingle.prompt.parser import reply_parser
from tests.prompt.parsing import DSML, WITH_DSML, WITHOUT_DSML, in_pieces, opened

CALL_V32 = f'<{DSML}function_calls>\n<{DSML}invoke name="'
VALUE_V32 = f'{CALL_V32}f">\n<{DSML}parameter name="a" string="'
CALL_V4 = CALL_V32.replace("function_calls", "tool_calls")
VALUE_V4 = VALUE_V32.replace("function_calls", "tool_calls")
FENCED = f"{CALLS}{CALL}function{SEP}"
LONG = 40_000  # characters

CASES = [
    ("deepseek_v3", "", "\n"),
    ("deepseek_v3", f"{FENCED}f\n```json\n", "{["),
    ("deepseek_v3", f"{FENCED}f\n```json\n", "\n```"),
    ("deepseek_v3", f"{FENCED}", "name"),
    ("deepseek_v31", f"{CALLS}{CALL}", "name"),
    ("deepseek_v31", f"{CALLS}{CALL}f{SEP}", '{"a":'),
    ("deepseek_v32", "", f"{DSML}<</<｜"),
    ("deepseek_v32", "", "\n\n<"),
    ("deepseek_v32", CALL_V32, "name"),
    ("deepseek_v32", f"<{DSML}", f"</{DSML}function_calls"),
    ("deepseek_v32", f"<{DSML}", f'<{DSML}invoke name="f">'),
    ("deepseek_v32", f"{VALUE_V32}true", ' string="tru'),
    ("deepseek_v32", f'{VALUE_V32}true">', f"</｜DSML</<{DSML}\n\\"),
    ("deepseek_v32", f'{VALUE_V32}true">', f"</{DSML}parameter name="),
    ("deepseek_v4", "", "\n"),
    ("deepseek_v4", END_THINK, "\n\n<"),
    ("deepseek_v4", f'{VALUE_V4}false">', "{[<"),
    ("deepseek_v4", f'{VALUE_V4}false">', "</"),
    ("deepseek_v4", f'{CALL_V4}f">\n<{DSML}parameter name="', 'a"'),
    ("deepseek_v4", f'{CALL_V4}f">\n', "parameter name"),
]


def seconds(name: str, begin: str, repeated: str, length: int, cuts: tuple[int, ...]) -> float:
    """Processor time to parse a beginning and then `length` characters of one text."""
    tokenizer = WITHOUT_DSML if name == "deepseek_v32" else WITH_DSML
    text = begin + repeated * (length // len(repeated))
    pushes = in_pieces(text, tokenizer, cuts)
    parser = reply_parser(name, tokenizer, opened(tokenizer, True))
    begun = time.process_time()
    for token, piece in pushes:
        parser.push(token, piece)
    parser.finish()
    return time.process_time() - begun


@pytest.mark.parametrize(("name", "begin", "repeated"), CASES, ids=range(len(CASES)))
def test_four_times_the_text_takes_four_times_as_long(name: str, begin: str, repeated: str) -> None:
    """In tokens of three characters; a scan of all text at each push would take 16 times."""

    def ratio() -> float:
        short = min(seconds(name, begin, repeated, LONG // 4, (3,)) for _ in range(3))
        return seconds(name, begin, repeated, LONG, (3,)) / short

    assert any(ratio() < 8 for _ in range(3))


@pytest.mark.parametrize(("name", "begin", "repeated"), CASES, ids=range(len(CASES)))
def test_megabytes_in_one_piece(name: str, begin: str, repeated: str) -> None:
    """A scan of what follows at each tag would take minutes."""
    assert seconds(name, begin, repeated, 1_000_000, ()) < 10
