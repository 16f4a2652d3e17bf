"""Hostile bodies by the number of their class: path, body and the statuses that are right.

The classes are those that servers of language models were attacked with in 2024 to 2026; a body
that is harmless may be answered (200), and none may hang or break anything: an expression that
would make a backtracking matcher explode is matched here in bounded time.
"""

from __future__ import annotations

import json
from typing import Any

from tests.hostile.target import CANARY

Case = tuple[str, Any, tuple[int, ...]]

CHAT, TEXT, COUNT = "/v1/chat/completions", "/v1/completions", "/v1/messages/count_tokens"
RESPONSES, MESSAGES, TOKENS = "/v1/responses", "/v1/messages", "/tokenize"
BAD, FINE = (400,), (200,)
EITHER = (200, 400)
USER = [{"role": "user", "content": f"47+85= {CANARY}"}]
NAN = float("nan")


def chat(*statuses: int, **fields: Any) -> Case:
    return CHAT, {"messages": USER, "max_tokens": 4} | fields, statuses or BAD


def text(*statuses: int, **fields: Any) -> Case:
    return TEXT, {"prompt": CANARY, "max_tokens": 4} | fields, statuses or BAD


def said(content: Any, *statuses: int, **fields: Any) -> Case:
    return chat(*statuses, messages=[{"role": "user", "content": content}], **fields)


def schema(value: Any, *statuses: int) -> Case:
    json_schema = {"name": "x", "schema": value}
    kind = {"type": "json_schema", "json_schema": json_schema}
    return chat(*statuses, response_format=kind, thinking={"type": "disabled"})


def regex(pattern: str, *statuses: int) -> Case:
    off = {"type": "disabled"}
    return chat(*statuses, structured_outputs={"regex": pattern}, thinking=off)


def grammar(rules: str, *statuses: int) -> Case:
    off = {"type": "disabled"}
    return chat(*statuses, structured_outputs={"grammar": rules}, thinking=off)


def part(kind: str, **fields: Any) -> Case:
    return said([{"type": kind, **fields}])


def written(body: str, *statuses: int) -> Case:
    return CHAT, body.encode("utf-8", "surrogatepass"), statuses or BAD


def beside(extra: str, *statuses: int) -> Case:
    """A body with something JSON libraries of clients do not write."""
    return written('{"messages":[{"role":"user","content":"47+85="}],' + extra + "}", *statuses)


URLS = ["file:///etc/passwd", "http://169.254.169.254/latest/", "http://[::1]:1/", "http://a\\@b/",
        "http://localhost:1/", "data:text/html,x", "gopher://x",
        "http://127.0.0.1.nip.io/"]  # fmt: skip
MARKS = ["<｜Assistant｜>", "</think>", "<think>", "<｜end▁of▁sentence｜>", "<|im_start|>system",
         "<｜tool▁calls▁begin｜>", "<｜DSML｜function_calls>", "[INST]"]  # fmt: skip
DEEP = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}]}}}  # fmt: skip

BODIES: dict[int, list[Case]] = {
    6: [text(prompt_embeds="gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"),
        chat(prompt_embeds="gASV"), text(prompt_embeds=["k05VTVBZ"])],
    9: [*[part("image_url", image_url={"url": url}) for url in URLS],
        *[part("file", file={"file_url": url}) for url in URLS],
        part("input_audio", input_audio={"data": "x", "format": "wav"}),
        (MESSAGES, {"max_tokens": 4, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": URLS[1]}}]}]}, BAD),
        (RESPONSES, {"input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": URLS[0]}]}]}, BAD)],
    10: [chat(tools=[{"type": "mcp", "server_url": URLS[1]}]), chat(tools=[{"type": "web_search"}]),
         (RESPONSES, {"input": "x", "tools": [{"type": "mcp", "server_url": URLS[1]}]}, BAD),
         schema({"$ref": "http://127.0.0.1:1/schema.json"}), schema({"$ref": "file:///etc/passwd"})],
    11: [chat(404, model=name) for name in ("../../etc", "/etc/passwd", "file:///etc", "a/../b")],
    12: [chat(n=10**9), chat(n=-1), text(n=10**9), text(best_of=10**9), text(best_of=0),
         chat(num_beams=10**6), chat(use_beam_search=True)],
    13: [chat(logprobs=True, top_logprobs=10**6), chat(logprobs=True, top_logprobs=-1),
         text(logprobs=10**6), text(logprobs=-1), text(prompt_logprobs=10**6),
         (RESPONSES, {"input": "x", "top_logprobs": 10**6}, BAD)],
    14: [chat(max_tokens=value) for value in (0, -1, 2**63, 2**200, 1.5, 10**6, "9", True)],
    15: [text(prompt=["x"] * 10**5), text(prompt=[[1]] * 10**5), text(prompt=[[[1]]]),
         text(prompt=[]), text(prompt=["a", 1])],
    16: [text(prompt=[value]) for value in (-1, 10**9, 2**70, True, 1.5, None)],
    17: [*[beside(f'"{field}":{value}') for value in ("NaN", "Infinity", "-Infinity", "1e999")
           for field in ("temperature", "top_p", "presence_penalty", "frequency_penalty")],
         beside('"temperature":-0.0,"max_tokens":4', 200), beside('"temperature":"1"'),
         beside('"temperature":true'), beside('"repetition_penalty":0'), beside('"min_p":2')],
    18: [chat(seed=-1), chat(seed=2**64), chat(seed=0.5), chat(seed="1"), chat(top_p=0),
         chat(top_p=1.0001), chat(top_k=-2), chat(200, 400, top_k=-1), chat(200, seed=2**53)],
    19: [chat(logit_bias={str(i): 1 for i in range(10**5)}), chat(logit_bias={"x": 1}),
         chat(logit_bias={"1": 1e308}), chat(logit_bias={"1": -1e308}), chat(logit_bias={"-1": 1}),
         chat(logit_bias={"9" * 400: 1}), chat(logit_bias=[1])],
    20: [chat(stop=["a"] * 10**4), chat(stop=""), chat(stop=[""]), chat(stop="x" * 10**6),
         beside('"stop":"\\ud800"'), chat(stop=[1])],
    21: [regex("(.{1,9999}){9999}", *EITHER), regex("["), regex("(?<=a)b"), regex("(a)\\1"),
         regex("a" * 10**6), regex("(" * 10**4), regex("((a{0,99}){0,99}){0,99}", *EITHER),
         regex("(a+)+$", *EITHER),
         regex("(a|a)*b", *EITHER)],
    22: [grammar("start: start"), grammar("start: start \"a\" | \"b\"", *EITHER),
         grammar("start: ("), grammar("start: " + "(" * 10**4),
         grammar("start: \"" + "a" * 10**6 + "\""),
         grammar("start: %import nope"), grammar("x: \"a\""), grammar("")],
    23: [schema(DEEP, *EITHER), schema({"$ref": "#"}), schema({"enum": list(range(10**5))}),
         schema({"properties": {str(i): {} for i in range(10**4)}}, *EITHER),
         schema({"type": "array", "maxItems": 10**9, "minItems": 10**9}, *EITHER),
         schema({"type": "string", "pattern": "("}),
         schema({"type": "string", "minLength": 10**9}, *EITHER),
         schema({"type": "nope"}), schema(7), schema({"$ref": "#/nowhere"}), schema(
             json.loads('{"items":' * 900 + "{}" + "}" * 900))],
    25: [chat(chat_template="{{ ''.__class__ }}"), chat(chat_template_kwargs={"x": 1}),
         chat(guided_decoding_backend="x"), chat(mm_processor_kwargs={"a": 1})],
    26: [(CHAT, {"messages": value}, (400, 413)) for value in (
            [], None, "x", 7, [None], [[]], [{}], USER * 10**5, [{"role": "robot", "content": "x"}],
            [{"role": "user"}], [{"role": "user", "content": None}],
            [{"role": "user", "content": 5}],
            [{"role": "user", "content": [{"type": "nope"}]}], [{"role": "tool", "content": "x"}])]
        + [said("x" * (3 << 20)), said("\x00", *EITHER), said("\ufeff47+85=", 200),
           said(" \n", *EITHER), said("", *EITHER),
           written('{"messages":[{"role":"user","content":"\\ud800"}]}'),
           written('{"messages":[{"role":"user","content":"\ud800"}]}'),
           chat(*EITHER, messages=[{"role": "assistant", "content": "x"}])],
    27: [said(mark, 200) for mark in MARKS],
    28: [written("[" * 10**5), written('{"a":' * 10**5), written("["), written(""), written("null"),
         beside('"tools":' + "[" * 999 + "]" * 999), beside('"a":1,"a":2'),
         beside('"seed":1,"seed":1e3'),
         (CHAT, b"\xff\xfe", BAD), (CHAT, b"\x1f\x8b\x08", BAD), written('{"messages":[]}\n{}'),
         beside('"max_tokens":' + "9" * 10**5),
         beside('"temperature":1e-999999,"max_tokens":4', *EITHER)],
    34: [(TEXT, {"prompt": "", "max_tokens": 1}, EITHER), said("9 " * 10**5),
         text(prompt=[5] * 10**5), (TEXT, {"prompt": [], "max_tokens": 1}, BAD),
         (COUNT, {"messages": []}, BAD), (TOKENS, {"prompt": 5}, BAD)],
}  # fmt: skip
