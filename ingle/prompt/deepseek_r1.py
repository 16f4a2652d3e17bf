"""Chat messages to token ids in the format of DeepSeek-V3 and R1.

    BOS system <｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜><think>\\n

(the blanks round BOS and system are for reading only). Special tokens are looked up by string, as
their ids moved between generations; text from a message can never become one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"


def encode_chat(
    messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer, thinking: bool = True
) -> list[int]:
    """Token ids of a conversation, ready for the model to write the next assistant turn.

    messages: mappings with `role` (system, developer, user, assistant) and `content`. System
    texts are joined by a blank line and stand first wherever they were; earlier reasoning is
    dropped, as R1's own template does. thinking=False closes the thought before it begins.
    Raises InvalidRequestError for an empty list, an unknown role or a final assistant turn.
    Source: chat_template of deepseek-ai/DeepSeek-R1, without its tool branches.
    """
    _check(messages)
    system = "\n\n".join(m["content"] for m in messages if _is_system(m))
    ids = [tokenizer.bos_id, *tokenizer.encode(system)]
    for message in messages:
        if message["role"] == "user":
            ids += [tokenizer.special(USER), *tokenizer.encode(message["content"])]
        elif message["role"] == "assistant":
            answer = message["content"].split(END_THINK)[-1]
            ids += [tokenizer.special(ASSISTANT), *tokenizer.encode(answer), tokenizer.eos_id]
    ids.append(tokenizer.special(ASSISTANT))
    if not has_thinking(tokenizer):
        return ids
    ids.append(tokenizer.special(THINK))
    if thinking:
        return ids + tokenizer.encode("\n")
    return [
        *ids,
        *tokenizer.encode("\n\n"),
        tokenizer.special(END_THINK),
        *tokenizer.encode("\n\n"),
    ]


def has_thinking(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the two tokens a thought stands between."""
    return None not in (tokenizer.find_special(THINK), tokenizer.find_special(END_THINK))


def _is_system(message: Mapping[str, str]) -> bool:
    return message["role"] in ("system", "developer")


def _check(messages: Sequence[Mapping[str, str]]) -> None:
    if not messages:
        raise InvalidRequestError("messages must hold at least one message.", "messages")
    for index, message in enumerate(messages):
        if not _is_system(message) and message["role"] not in ("user", "assistant"):
            raise InvalidRequestError(
                "A message's role must be system, developer, user or assistant.",
                f"messages[{index}].role",
            )
    if messages[-1]["role"] == "assistant":
        raise InvalidRequestError(
            "The last message must not be the assistant's: continuing a given answer is not "
            "supported.",
            "messages",
        )
