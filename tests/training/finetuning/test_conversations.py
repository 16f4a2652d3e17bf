"""Rows of chats become what serving would see; broken rows are named, without their text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import Encoder
from ingle.prompt.parser import reply_parser
from ingle.prompt.reply import has_thoughts
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import sample
from ingle.training.data import Document, chat_document
from ingle.training.finetuning.conversations import DatasetError, read_conversations, row_documents
from tests.prompt.conversations import Conversations
from tests.prompt.vocabulary import SPECIALS, V4, V41, byte_tokenizer

R1 = ENCODERS["deepseek_r1"]
BYTES = byte_tokenizer(V41)
VOCABULARIES = {"deepseek_v4": V4, "deepseek_v41": V41, "deepseek_v32": V4}


def spans(document: Document) -> Iterator[tuple[list[int], list[int]]]:
    """Each trained stretch of tokens with all that stands before it."""
    edges = [i for i, on in enumerate(document.train) if on and not document.train[i - 1]]
    for start in edges:
        rest = document.train[start:]
        end = start + (rest.index(False) if False in rest else len(rest))
        yield document.tokens[:start], document.tokens[start:end]


def parsed(encoder: Encoder, tokenizer: Tokenizer, prompt: list[int], reply: list[int]) -> dict:
    """A reply as the server reads it."""
    parser = reply_parser(encoder.name, tokenizer, prompt)
    deltas, pending = [], b""
    for token in reply:
        special = tokenizer.is_special(token)
        pending += b"" if special else tokenizer.token_bytes(token)
        try:
            text, pending = pending.decode(), b""
        except UnicodeDecodeError:
            text = ""
        deltas += parser.push(token, text)
    deltas += parser.finish()
    found: dict[str, Any] = {"content": "", "reasoning": "", "calls": []}
    for delta in deltas:
        if delta.kind != "call":
            found[delta.kind] += delta.text
        elif delta.name:
            found["calls"].append([delta.name, delta.text])
        else:
            found["calls"][delta.call][1] += delta.text
    return found


def arguments(text: str) -> Any:
    """As DSML carries them: what is no JSON object is one parameter."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"arguments": text}


def answered(seed: int, encoder: Encoder) -> dict[str, Any]:
    """A random conversation that ends with an answer, in words that the format keeps."""
    rng = random.Random(seed)
    source = Conversations(seed, reminders=False, systems_anywhere=False)
    request = source.request()
    messages = [m for m in request["messages"] if not m.get("prefix")]
    keeps: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "assistant" and (not keeps or keeps[-1]["role"] == "assistant"):
            continue  # no prompt ends with an answer
        keeps.append(message)
    while keeps[-1]["role"] == "tool" or keeps[-1].get("tool_calls"):
        keeps.pop()
    if keeps[-1]["role"] != "assistant":
        keeps.append({"role": "assistant", "content": "So."})
    for message in keeps:
        if message["role"] != "assistant":
            continue
        if message.get("content") is not None:
            message["content"] = f"A{rng.randint(0, 99)}" + message["content"].strip() + "."
        if message.get("reasoning_content"):
            message["reasoning_content"] = "R" + message["reasoning_content"].strip() + "."
        if not has_thoughts(encoder):
            message.pop("reasoning_content", None)
    return {"messages": keeps, "tools": request.get("tools")}


def without_calls(row: dict[str, Any]) -> dict[str, Any]:
    kept = [m for m in row["messages"] if m["role"] != "tool" and not m.get("tool_calls")]
    turns: list[dict[str, Any]] = []
    for message in kept:
        if message["role"] != "assistant" or (turns and turns[-1]["role"] != "assistant"):
            turns.append(message)
    return {"messages": turns}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("seed", range(12))
def test_what_is_trained_is_what_serving_asks_for_and_reads(name: str, seed: int) -> None:
    encoder = ENCODERS[name]
    tokenizer = byte_tokenizer(VOCABULARIES.get(name, SPECIALS))
    row = answered(seed, encoder)
    if name in ("deepseek_llm", "deepseek_coder"):
        row = without_calls(row)
    documents = row_documents(row, encoder, tokenizer)
    messages = row["messages"]
    found = [span for document in documents for span in spans(document)]
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    assert len(found) == len(answers)
    for index, (before, reply) in zip(answers, found, strict=True):
        message = messages[index]
        prompts = [
            encoder.encode(messages[:index], tokenizer, tools=row.get("tools"), thinking=thinking)
            for thinking in (True, False)
        ]
        thoughtless = not message.get("reasoning_content")
        assert before == prompts[0] or (before == prompts[1] and thoughtless)
        if name == "deepseek_coder":  # whose parser leaves the newline before the end
            continue
        read = parsed(encoder, tokenizer, before, reply)
        assert read["content"].strip() == (message.get("content") or "")
        assert read["reasoning"] == (message.get("reasoning_content") or "")
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        assert [name for name, _ in read["calls"]] == [call["name"] for call in calls]
        for (_, text), call in zip(read["calls"], calls, strict=True):
            dsml = "DSML" in tokenizer.decode(reply, skip_special=False)
            assert text == call["arguments"] or (
                dsml and json.loads(text) == arguments(call["arguments"])
            )


def row_of(*answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for index, answer in enumerate(answers):
        messages.append({"role": "user", "content": f"q{index}"})
        messages.append({"role": "assistant", **answer})
    return {"messages": messages, **more}


def shown(document: Document, tokenizer: Tokenizer) -> str:
    """The document as text, with what is trained in brackets."""
    out = ""
    before = False
    for token, on in zip(document.tokens, document.train, strict=True):
        out += "[" * (on and not before) + "]" * (before and not on)
        out, before = out + tokenizer.decode([token], skip_special=False), on
    return out + "]" * before


THOUGHT = {"reasoning_content": "hm", "content": "a0"}
BOS, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def test_earlier_thoughts_are_dropped_so_each_answer_has_a_document_of_its_own() -> None:
    row = row_of(THOUGHT, {"reasoning_content": "mh", "content": "a1"})
    first, second = row_documents(row, R1, BYTES)
    assert shown(first, BYTES) == (
        f"{BOS}<｜User｜>q0<｜Assistant｜><think>\n[hm\n</think>\n\na0{END}]"
    )
    assert shown(second, BYTES) == (
        f"{BOS}<｜User｜>q0<｜Assistant｜>a0{END}<｜User｜>q1<｜Assistant｜><think>\n"
        f"[mh\n</think>\n\na1{END}]"
    )


def test_answers_share_a_document_where_the_next_prompt_keeps_them() -> None:
    row = row_of({"content": "a0"}, {"content": "a1"})
    (document,) = row_documents(row, ENCODERS["deepseek_v3"], BYTES)
    assert shown(document, BYTES) == (
        f"{BOS}<｜User｜>q0<｜Assistant｜>[a0{END}]<｜User｜>q1<｜Assistant｜>[a1{END}]"
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    kept = row_of(THOUGHT, THOUGHT, tools=[tool])  # with tools V4 keeps all thoughts
    assert len(row_documents(kept, ENCODERS["deepseek_v4"], BYTES)) == 1
    assert len(row_documents(row_of(THOUGHT, THOUGHT), ENCODERS["deepseek_v4"], BYTES)) == 2


def test_an_answer_without_a_thought_is_asked_for_without_thinking() -> None:
    (document,) = row_documents(row_of({"content": "a"}), R1, BYTES)
    assert shown(document, BYTES).endswith(f"<think>\n\n</think>\n\n[a{END}]")
    (late,) = row_documents(row_of(THOUGHT), ENCODERS["deepseek_r1_0528"], BYTES)
    assert shown(late, BYTES).endswith(f"<｜Assistant｜>[<think>\nhm\n</think>\n\na0{END}]")


@pytest.mark.parametrize("content", ["<think>\nhm\n</think>\n\na0", "hm</think>a0"])
def test_a_thought_in_the_content_is_a_thought(content: str) -> None:
    inline, apart = (
        row_of(answer, {"content": "a1"}) for answer in ({"content": content}, THOUGHT)
    )
    assert row_documents(inline, R1, BYTES) == row_documents(apart, R1, BYTES)


def test_weight_0_leaves_an_answer_untrained() -> None:
    row = row_of({"content": "a0", "weight": 0}, {"content": "a1", "weight": 1})
    (document,) = row_documents(row, ENCODERS["deepseek_v31"], BYTES)
    assert shown(document, BYTES).endswith(
        f"</think>a0{END}<｜User｜>q1<｜Assistant｜></think>[a1{END}]"
    )


def test_a_problem_of_ours_is_the_same_document_as_a_row(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    earlier, problem = (sample(rng, "sums", 2, "train") for _ in range(2))
    row = row_of(
        {"content": earlier.answer, "weight": 0},
        {"reasoning_content": problem.trace, "content": problem.answer},
    )
    row["messages"][0]["content"] = earlier.question
    row["messages"][2]["content"] = problem.question
    assert row_documents(row, R1, tokenizer) == [chat_document([earlier], problem, tokenizer)]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER = {"role": "assistant", "content": "SECRET"}
ASK = {"role": "user", "content": "SECRET"}
BROKEN: dict[str, Any] = {
    "no JSON": '{"messages": [SECRET',
    "must be a JSON object": "[1]",
    "messages: messages must be a list": {"text": "SECRET"},
    "messages: Empty": {"messages": []},
    "messages[0]: messages[0] must be an object": {"messages": ["SECRET", ANSWER]},
    "messages[0].role": {"messages": [{"role": "SECRET", "content": ""}, ANSWER]},
    "messages[0].content": {"messages": [{"role": "user", "content": 3}, ANSWER]},
    "messages[1].content": {"messages": [ASK, {"role": "assistant", "content": None}]},
    "messages[1]: A conversation must end": {"messages": [ANSWER, ASK]},
    "messages[0]: A trained answer": {"messages": [ANSWER]},
    "messages[2]: A trained answer": {"messages": [ASK, ANSWER, ANSWER]},
    "messages: No message": {"messages": [ASK, {**ANSWER, "weight": 0}]},
    "messages[1].weight": {"messages": [ASK, {**ANSWER, "weight": 2}]},
    "messages[1].function_call": {"messages": [ASK, {**ANSWER, "function_call": {"name": "f"}}]},
    "messages[1].prefix": {"messages": [ASK, {**ANSWER, "prefix": True}]},
    "functions: ": {"messages": [ASK, ANSWER], "functions": [{}]},
    "tools: tools must": {"messages": [ASK, ANSWER], "tools": "SECRET"},
    "tools[0].function.name": {
        "messages": [ASK, ANSWER], "tools": [{"type": "function", "function": {"name": "SECRET!"}}]
    },
    "messages[1].tool_calls": {"messages": [ASK, {**ANSWER, "tool_calls": [CALL]}, ASK, ANSWER]},
    "messages[1].tool_calls[0].id": {
        "messages": [ASK, {**ANSWER, "tool_calls": [{**CALL, "id": None}]}]
    },
    "The conversation has 4": {"messages": [{"role": "user", "content": "SECRET" * 70}, ANSWER]},
    "not UTF-8": b'{"messages": "\xff"}',
    "column": '{"messages": []} SECRET',
    "no JSON that can be read": "[" * 200_000,
}  # fmt: skip


def as_line(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row
    return (row if isinstance(row, str) else json.dumps(row)).encode()


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_row_stops_with_its_line_and_field(reason: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    good = as_line({"messages": [ASK, ANSWER]})
    file.write_bytes(b"\n".join([good, b"", as_line(BROKEN[reason]), good]))
    with pytest.raises(DatasetError) as caught:
        read_conversations(file, R1, BYTES, longest=400)
    assert "data.jsonl, line 3: " in str(caught.value) and reason in str(caught.value)
    assert "SECRET" not in str(caught.value)
    found = read_conversations(file, R1, BYTES, longest=400, skip_broken=True)
    assert (found.rows, [row.line for row in found.broken]) == (2, [3])
    assert len(found.documents) == 2 and found.documents[0] == found.documents[1]
    assert reason in found.broken[0].reason


def test_a_row_may_end_with_calls_and_the_vocabulary_must_have_them() -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}]}
    (document,) = row_documents(row, R1, BYTES)
    assert shown(document, BYTES).endswith(f"```<｜tool▁call▁end｜><｜tool▁calls▁end｜>{END}]")
    with pytest.raises(InvalidRequestError, match="tool calls"):
        row_documents(row, R1, byte_tokenizer((*SPECIALS[:7],)))
    with pytest.raises(InvalidRequestError, match="reasoning_content"):
        row_documents(row_of(THOUGHT), ENCODERS["deepseek_v3"], BYTES)


@pytest.mark.parametrize("content", [b"", b"\n \n", None])
def test_a_file_without_rows_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(DatasetError, match=r"data.jsonl (has no row|cannot be read)"):
        read_conversations(tmp_path / "data.jsonl", R1, BYTES, longest=400)
    (tmp_path / "data.jsonl").write_bytes(b"x\ny\n")
    with pytest.raises(DatasetError, match="the first of 2, line 1: "):
        read_conversations(tmp_path / "data.jsonl", R1, BYTES, longest=400, skip_broken=True)
