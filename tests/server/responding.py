"""What the tests of the Responses API share: a scripted reply and how to ask for it."""

from __future__ import annotations

from typing import Any

from ingle.prompt.deepseek_v41 import DeepSeekV41
from tests.prompt.vocabulary import V41, byte_tokenizer

THOUGHT, ANSWER = "I think.", "Hello é"
CALL = (
    '\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="get">\n'
    '<｜DSML｜ parameter name="a" string="true">x</｜DSML｜ parameter>\n'
    "</｜DSML｜ invoke>\n</｜DSML｜ calls>"
)
TOOLS = [
    {
        "type": "function",
        "name": "get",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
]
UNKNOWN = "resp_" + "0" * 32


def serve_v41(start, scripted, access=None, **script: Any):
    """A server of V4.1's format, in whose vocabulary each byte is a token."""
    engine = scripted(byte_tokenizer(V41), context=1 << 16, **script)
    return start(engine, access, DeepSeekV41())


def usual(live):
    """The server, back at its usual reply."""
    live.engine.reasoning, live.engine.content = THOUGHT, ANSWER
    live.engine.step_seconds, live.engine.rejects = 0.0, False
    return live


def ask(live, **body: Any) -> dict[str, Any]:
    reply = live.client.post("/v1/responses", json={"input": "hi", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def prompt_of(live) -> str:
    engine = live.engine
    return engine.tokenizer.decode(engine.seen[-1].prompt, skip_special=False)
