"""What a model writes behind a prompt: the tokens of one reply, the reverse of the parsers.

A prompt and its reply are encoded apart, as the model that writes the reply starts at a token's
edge. The answer and its calls are taken from the encoder's own record of an earlier turn, so that
they are written in one place only; the thought, which a record may lose, is written here:

    deepseek_r1       R\\n</think>\\n\\nA     behind an open `<think>\\n`; R1-0528 opens it itself
    V3.1 and later    R</think>A           behind an open `<think>`
    the others        A
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingle.errors import InvalidRequestError
from ingle.prompt.deepseek_coder import EOT
from ingle.prompt.encoder import ASSISTANT, END_THINK, EOS, THINK, Encoder, ends_in_reasoning
from ingle.prompt.messages import Message

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

# Formats without thoughts; those whose roles are plain text: before, behind and at the end of A.
_WITHOUT_THOUGHTS = ("deepseek_llm", "deepseek_coder", "deepseek_v3")
_PLAIN = {"deepseek_llm": (" ", "", EOS), "deepseek_coder": ("", "\n", EOT)}


def has_thoughts(encoder: Encoder) -> bool:
    """Whether replies in this format can hold a thought."""
    return encoder.name not in _WITHOUT_THOUGHTS


def encode_reply(
    encoder: Encoder, tokenizer: Tokenizer, prompt: Sequence[int], message: Message
) -> list[int]:
    """Token ids of the reply that `message` records, up to the token that ends it.

    prompt: what the encoder gave for the messages before it. A thought is written where the prompt
    has opened one, and where the message has one that the prompt lets it open. Raises
    InvalidRequestError for a thought or calls that the format or this prompt has no place for.
    """
    if encoder.name in _PLAIN:
        if message.reasoning or message.calls:
            raise _misplaced(message, "reasoning_content" if message.reasoning else "tool_calls")
        before, behind, end = _PLAIN[encoder.name]
        text = before + message.content + behind if message.content else behind
        return [*tokenizer.encode(text), tokenizer.special(end)]
    spaced = encoder.name.startswith("deepseek_r1")
    opened = ends_in_reasoning(prompt, tokenizer)
    thought = message.reasoning or ""
    if not (opened or thought):
        return _answer(encoder, tokenizer, message)
    if not has_thoughts(encoder) or _closes_thought(prompt, tokenizer):
        raise _misplaced(message, "reasoning_content")
    ids = [] if opened else [tokenizer.special(THINK)]
    if spaced:
        thought = thought + "\n" if opened else f"\n{thought}\n"
    ids += [*tokenizer.encode(thought), tokenizer.special(END_THINK)]
    gap = "\n\n" if spaced else ""
    return ids + _answer(encoder, tokenizer, replace(message, content=gap + message.content))


def _closes_thought(prompt: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether thinking is off. Behind tool results, and in R1-0528, the model opens a thought."""
    last = next((index for index in reversed(prompt) if tokenizer.is_special(index)), None)
    return last is not None and last == tokenizer.find_special(END_THINK)


def _answer(encoder: Encoder, tokenizer: Tokenizer, message: Message) -> list[int]:
    """Content, calls and end of a turn, cut out of a conversation in which it is an earlier one."""
    calls = [
        {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    results = [{"role": "tool", "tool_call_id": call.id, "content": ""} for call in message.calls]
    question = {"role": "user", "content": "?"}
    turn: dict[str, Any] = {"role": "assistant", "content": message.content, "tool_calls": calls}
    turn["reasoning_content"] = ""  # the content is all answer: nothing is to be cut from it
    record = [question, turn, *results, question]
    ids, starts = encoder.encode_marked(record, tokenizer, thinking=False)
    begin = next(token for token, index in starts if index == 1)
    opening = {tokenizer.find_special(ASSISTANT), tokenizer.find_special(END_THINK)}
    while ids[begin] in opening:
        begin += 1
    return ids[begin : ids.index(tokenizer.special(EOS), begin) + 1]


def _misplaced(message: Message, field: str) -> InvalidRequestError:
    param = f"messages[{message.index}].{field}"
    return InvalidRequestError(f"The prompt format has no place for {field} here.", param)
