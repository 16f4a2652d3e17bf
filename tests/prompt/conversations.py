"""Random conversations with all that a request can hold, for comparing encoders with an oracle."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.prompt.vocabulary import V41

WORDS = (
    *("Why?", "two", " of", "sum ", "x = 1", "```json\n{}\n```", "你好", "Ω\u200d", "é", "😀"),
    *("\n", "\n\n", "  ", "\t", "<b>", "</tool_result>", "## Tools", "<functions>", "{% if %}"),
    *('"json"', "\\n", "\r\n", "1234567890", "naïve", "\u2028", "\x7f", "don't"),
)
FRAGMENTS = (
    "<｜",
    "｜>",
    "DSML",
    "<｜DSML｜ calls>",
    "</｜DSML｜parameter>",
    "</｜DSML｜invoke>\n",
)
VALUES = ("", 1, -2.5, 1e21, 0.1, True, None, [], {}, [1, "ü", {"k": None}], {"a": {"b": [""]}})
NAMES = ("get_weather", "search", "run-py", "F2")
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max", "ultra")


class Conversations:
    """A source of requests in the shape of Chat Completions; the same seed, the same requests."""

    def __init__(self, seed: int, reminders: bool = True, systems_anywhere: bool = True) -> None:
        self._rng = random.Random(seed)
        self._reminders = reminders
        self._systems_anywhere = systems_anywhere

    def request(self) -> dict[str, Any]:
        """messages, and where drawn tools, thinking, effort and response_schema."""
        rng = self._rng
        request: dict[str, Any] = {"messages": self._messages()}
        if rng.random() < 0.4:
            count = rng.randint(1, 3)
            request["tools"] = [self._tool(name) for name in rng.sample(NAMES, count)]
        if rng.random() < 0.4:
            request["thinking"] = False
        elif rng.random() < 0.7:
            request["effort"] = rng.choice(EFFORTS)
        if rng.random() < 0.3:
            request["response_schema"] = self._schema()
        if rng.random() < 0.5 and "tools" not in request:
            request["messages"].append(self._prefix())
        return request

    def text(self, most: int = 6) -> str:
        """Words, some of them names of special tokens."""
        rng, text = self._rng, ""
        for _ in range(rng.randint(0, most)):
            text += rng.choice(rng.choice((WORDS, WORDS, WORDS, FRAGMENTS, V41)))
        return text

    def _messages(self) -> list[dict[str, Any]]:
        rng = self._rng
        messages = []
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            messages.append({"role": "system", "content": self.text()})
        if rng.random() < 0.1:
            messages.append(self._answer())
        for _ in range(rng.randint(1, 4)):
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                messages.append({"role": "user", "content": self.text()})
                messages += self._asides()
            while rng.random() < 0.4:
                messages += self._calls()
                messages += self._asides()
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                messages.append(self._answer())
                messages += self._asides()
        if messages[-1]["role"] == "assistant":
            messages.append({"role": "user", "content": self.text()})
        return messages

    def _asides(self) -> list[dict[str, Any]]:
        """Messages that may stand between any others."""
        rng, asides = self._rng, []
        while rng.random() < 0.15:
            roles = ["latest_reminder"] * self._reminders + ["system"] * self._systems_anywhere
            if not roles:
                break
            asides.append({"role": rng.choice(roles), "content": self.text(3)})
        return asides

    def _answer(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text()}
        if self._rng.random() < 0.7:
            message["reasoning_content"] = self.text()
        return message

    def _prefix(self) -> dict[str, Any]:
        content = self._rng.choice(("", self.text()))
        return {**self._answer(), "content": content, "prefix": True}

    def _calls(self) -> list[dict[str, Any]]:
        """A turn that calls tools, and the results in an order of their own."""
        rng = self._rng
        ids = [f"call_{number}" for number in range(rng.choice((1, 1, 2, 3)))]
        calls = [
            {
                "id": i,
                "type": "function",
                "function": {"name": rng.choice(NAMES), "arguments": self._arguments()},
            }
            for i in ids
        ]
        asked = {**self._answer(), "tool_calls": calls}
        if rng.random() < 0.5:
            asked["content"] = None
        rng.shuffle(ids)
        results = [{"role": "tool", "tool_call_id": i, "content": self.text()} for i in ids]
        return [asked, *results]

    def _arguments(self) -> str:
        rng = self._rng
        keys = [self.text(2) or "city" for _ in range(rng.randint(0, 3))]
        values = {key: rng.choice((self.text(), rng.choice(VALUES))) for key in keys}
        indent = rng.choice((None, 1))
        return json.dumps(values, ensure_ascii=rng.random() < 0.5, indent=indent)

    def _tool(self, name: str) -> dict[str, Any]:
        rng = self._rng
        function: dict[str, Any] = {"name": name}
        if rng.random() < 0.8:
            function["description"] = self.text()
        if rng.random() < 0.8:
            function["parameters"] = self._schema()
        return {"type": "function", "function": function}

    def _schema(self) -> dict[str, Any]:
        rng = self._rng
        names = sorted({self.text(2) for _ in range(rng.randint(0, 3))})
        return {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": self.text(), "default": rng.choice(VALUES)}
                for name in names
            },
            "required": names,
        }
