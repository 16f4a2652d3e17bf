"""A file of conversations -> documents to train on, in the format of a model's generation.

A line of the file is one JSON object in OpenAI's chat form: `messages` and, where calls are made,
`tools`. A message may have `reasoning_content`, `tool_calls`, and an assistant's `weight` 0, which
leaves it untrained.

What is trained is what serving would see: every answer stands behind the very prompt that the
encoder writes for the messages before it, so earlier thoughts are there or gone as the generation
has it. Where that prompt begins with the document so far, the answer joins it; else it starts a
document of its own. A request thinks or it does not: the answers to one user message are asked for
with thinking if one of them has a thought.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingle.errors import IngleError, InvalidRequestError
from ingle.prompt.encoder import END_THINK, THINK, Encoder
from ingle.prompt.messages import Message
from ingle.prompt.reply import encode_reply, has_thoughts
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.data import Document

Progress = Callable[[int, int], None]  # bytes read, bytes in all
_REFUSED = {
    "function_call": "function_call is of an older form; write tool_calls.",
    "prefix": "prefix has no meaning in a finished conversation.",
}


class DatasetError(IngleError):
    """A file of training data that cannot be read, or a row of it that cannot be trained on."""

    code = "invalid_dataset"


@dataclass(frozen=True)
class BrokenRow:
    """A row that is left out: its line, counted from 1, and why, without anything of its text."""

    line: int
    reason: str

    def words(self) -> str:
        return f"line {self.line}: {self.reason}"


class Documents:
    """Documents in little memory: four bytes a token, one for whether it is trained."""

    def __init__(self) -> None:
        self._tokens, self._train, self._ends = array("i"), bytearray(), array("q", [0])

    def append(self, document: Document) -> None:
        self._tokens.extend(document.tokens)
        self._train.extend(document.train)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Document:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(self._ends[index], self._ends[index + 1])
        return Document(self._tokens[part].tolist(), [bool(on) for on in self._train[part]])

    def size(self, index: int) -> int:
        """Tokens of one document."""
        return self._ends[index + 1] - self._ends[index]

    @property
    def trained_tokens(self) -> int:
        return sum(self._train)


@dataclass(frozen=True)
class Dataset:
    """A file that was read: its documents, the digest of its bytes, and what was left out."""

    documents: Documents
    sha256: str
    rows: int
    broken: tuple[BrokenRow, ...]


def read_conversations(
    path: Path, encoder: Encoder, tokenizer: Tokenizer, longest: int, skip_broken: bool = False,
    progress: Progress | None = None,
) -> Dataset:  # fmt: skip
    """Read a JSONL file of conversations; blank lines are nothing.

    longest: most tokens of a document. skip_broken: leave broken rows out and list them; otherwise
    the first one raises DatasetError. So does a file that cannot be read or has no row to train on.
    progress: told how many bytes have been read.
    """
    documents, digest = Documents(), sha256()
    rows, broken = 0, []
    for line, raw in _lines(path, progress):
        digest.update(raw)
        if not raw.strip():
            continue
        try:
            found = row_documents(_parse(raw), encoder, tokenizer)
            _check_lengths(found, longest)
        except InvalidRequestError as error:
            reason = str(error).rstrip(".") + "."
            broken.append(BrokenRow(line, f"{error.param}: {reason}" if error.param else reason))
            if skip_broken:
                continue
            raise DatasetError(
                f"{path.name}, {broken[0].words()} Mend the row, or leave broken rows out with "
                "--skip-broken."
            ) from None
        rows += 1
        for document in found:
            documents.append(document)
    if not rows:
        first = f"the first of {len(broken)}, {broken[0].words()}" if broken else "it is empty."
        raise DatasetError(f"{path.name} has no row to train on: {first}")
    return Dataset(documents, digest.hexdigest(), rows, tuple(broken))


def _lines(path: Path, progress: Progress | None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, counted from 1; DatasetError where it cannot be read."""
    try:
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            for line, raw in enumerate(file, 1):
                yield line, raw
                done += len(raw)
                if progress is not None:
                    progress(done, total)
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read: {error.strerror}.") from None


def row_documents(row: Mapping[str, Any], encoder: Encoder, tokenizer: Tokenizer) -> list[Document]:
    """The documents of one conversation: each trained answer occurs in exactly one of them.

    Raises InvalidRequestError, naming the field, for a row that is malformed, has nothing to train,
    or says what the format cannot express.
    """
    messages, tools = _checked(row, encoder, tokenizer)
    read = {message.index: message for message in _read_all(messages, encoder, tokenizer, tools)}
    thinking = _thinking(read, encoder)
    found: list[Document] = []
    for index, message in read.items():
        if message.role != "assistant" or not _is_trained(messages[index], index):
            continue
        _check_asked(read, index)
        prompt = encoder.encode(messages[:index], tokenizer, tools=tools, thinking=thinking[index])
        reply = encode_reply(encoder, tokenizer, prompt, message)
        before: list[bool] = []
        if found and prompt[: len(found[-1].tokens)] == found[-1].tokens:
            before = found.pop().train
        context = [False] * (len(prompt) - len(before))
        found.append(Document(prompt + reply, [*before, *context, *[True] * len(reply)]))
    if not found:
        raise InvalidRequestError("No message of the assistant is to be trained.", "messages")
    return found


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidRequestError("The line is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The line is no JSON ({error.msg}, column {error.colno})."
        ) from None
    except (ValueError, RecursionError):  # digits or brackets without end
        raise InvalidRequestError("The line is no JSON that can be read.") from None
    if not isinstance(row, dict):
        raise InvalidRequestError("The line must be a JSON object with messages.")
    return row


def _checked(
    row: Mapping[str, Any], encoder: Encoder, tokenizer: Tokenizer
) -> tuple[list[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]:
    """messages, with thoughts that stand in a content put where they belong, and tools."""
    messages, tools = row.get("messages"), row.get("tools")
    if not isinstance(messages, list):
        raise InvalidRequestError("messages must be a list.", "messages")
    if not isinstance(tools, list | None):
        raise InvalidRequestError("tools must be a list.", "tools")
    if row.get("functions"):
        raise InvalidRequestError("functions are of an older form; write tools.", "functions")
    for index, message in enumerate(messages):
        for name, advice in _REFUSED.items():
            if isinstance(message, Mapping) and message.get(name):
                raise InvalidRequestError(advice, f"messages[{index}].{name}")
    if has_thoughts(encoder):
        messages = [_with_thought_apart(message) for message in messages]
    return messages, tools


def _with_thought_apart(message: Any) -> Any:
    """`<think>R</think>A` in a content, as many data sets have it, is a thought and an answer."""
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return message
    content = message.get("content")
    if not isinstance(content, str) or END_THINK not in content:
        return message
    if any(message.get(name) is not None for name in ("reasoning_content", "reasoning")):
        return message  # kept apart already: a tag in the content is the author's own
    thought, _, answer = content.partition(END_THINK)
    thought = thought.strip().removeprefix(THINK).strip("\n")
    return {**message, "reasoning_content": thought, "content": answer.lstrip("\n")}


def _read_all(
    messages: list[Mapping[str, Any]], encoder: Encoder, tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, Any]] | None,
) -> list[Message]:  # fmt: skip
    """Check the whole conversation as an earlier part of a longer one; messages in their order."""
    last = messages[-1] if messages else {}
    if isinstance(last, Mapping) and last.get("role") not in (None, "assistant"):
        raise InvalidRequestError(
            "A conversation must end with the assistant's answer.", f"messages[{len(messages) - 1}]"
        )
    calls = (last.get("tool_calls") if isinstance(last, Mapping) else None) or ()
    results = [
        {"role": "tool", "tool_call_id": call.get("id"), "content": ""}
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, Mapping)
    ]
    longer = [*messages, *results, {"role": "user", "content": ""}] if messages else []
    encoder.encode(longer, tokenizer, tools=tools)  # also what only the format refuses
    read = [message for message in encoder.read(longer) if message.index < len(messages)]
    return sorted(read, key=lambda message: message.index)


def _thinking(read: Mapping[int, Message], encoder: Encoder) -> list[bool]:
    """For each message, whether it is written with thinking on."""
    exchange, exchanges = 0, []
    for message in read.values():
        exchange += message.role == "user"
        exchanges.append(exchange)
    thoughtful = {
        exchanges[index] for index, m in read.items() if m.role == "assistant" and m.reasoning
    }
    return [exchange in thoughtful and has_thoughts(encoder) for exchange in exchanges]


def _is_trained(message: Mapping[str, Any], index: int) -> bool:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1, None):
        raise InvalidRequestError("weight must be 0 or 1.", f"messages[{index}].weight")
    return weight != 0


def _check_asked(read: Mapping[int, Message], index: int) -> None:
    """No prompt is ever written that ends with an answer, or that is empty."""
    if index == 0 or (read[index - 1].role == "assistant" and not read[index - 1].calls):
        raise InvalidRequestError(
            "A trained answer must follow a message of the user, the system or a tool; give it "
            "weight 0, or join it to the answer before it.",
            f"messages[{index}]",
        )


def _check_lengths(documents: list[Document], longest: int) -> None:
    size = max(len(document.tokens) for document in documents)
    if size > longest:
        raise InvalidRequestError(f"The conversation has {size} tokens, {longest} are allowed.")
