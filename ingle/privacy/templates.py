"""The chat template against the encoder that ingle uses instead of it.

A template is a program of whoever made the folder. It is rendered here, and only here, in jinja2's
sandbox and in a child of limited time and memory (limited.py), to see whether it writes what
ingle's own encoder writes. That the texts are the same for these conversations says nothing about
others: a template may wait for a word. ingle is safe from that by not using it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from ingle.errors import ConfigError, IngleError
from ingle.privacy.facts import Finding, Severity, Template, text_of
from ingle.privacy.folder import read_file, read_object
from ingle.prompt.encoder import Encoder
from ingle.prompt.select import choose_encoder
from ingle.prompt.tokenizer import Tokenizer, byte_symbols

_MAX_TEMPLATE = 1 << 20
_MAX_RENDERED = 1 << 20
_ASK, _SAY = "What is 2 + 3?", "It is 5."
CONVERSATIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", _ASK),),
    (("system", "Be brief."), ("user", _ASK)),
    (("user", _ASK), ("assistant", _SAY), ("user", "And 3 + 4?")),
    (
        *(("system", "Be brief.\n\nBe kind."), ("user", _ASK), ("assistant", _SAY)),
        *(("user", "你好, Ω"), ("assistant", "Hello.\n"), ("user", " two\n\nlines ")),
    ),
    (("user", "{{ 7 * 7 }} {% if x %} <｜User｜> </s> \\n \"quoted\" 'too' <b>&amp;"),),
)
"""Rendered by both: roles and contents."""


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is looked for in. added: the tokens that tokenizer.json adds."""

    folder: Path
    paths: frozenset[str]
    added: tuple[tuple[int, str], ...]


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What this part of the audit gives."""

    template: Template
    findings: tuple[Finding, ...] = ()


def examine_template(place: Folder) -> Rendered:
    """Compare; hostile and different templates are findings."""
    texts = list(_templates(place))
    if not texts:
        return Rendered(template=Template())
    file, text = texts[0]
    template = Template(file=file, sha256=_digest(text), status="undecided")
    try:
        from jinja2 import sandbox  # comes with torch; without it nothing is rendered
    except ImportError:
        sentence = "jinja2 is not installed, so that the template was not compared."
        return _with(template, "template.undecided", "doubt", sentence)
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: "1 Jan 2026"}
    for path, each in texts:
        if why := _hostile(environment, each):
            template = msgspec.structs.replace(template, status="hostile")
            return _with(template, "template.hostile", "refuse", f"{path}: {why}")
    return _compare(template, environment, text, place)


def _compare(template: Template, environment: Any, text: str, place: Folder) -> Rendered:
    try:
        tokenizer = _byte_tokenizer(place.added)
        config = read_object(place.folder, place.paths, "config.json")
        encoder = choose_encoder(config, tokenizer, template=text)
    except (ConfigError, ValueError):
        sentence = "ingle has no encoder for this folder to compare the template with."
        return _with(template, "template.unknown", "doubt", sentence)
    template = msgspec.structs.replace(template, encoder=encoder.name)
    names = read_object(place.folder, place.paths, "tokenizer_config.json")
    variables = {f"{end}_token": _content(names.get(f"{end}_token")) for end in ("bos", "eos")}
    compared = 0
    for number, conversation in enumerate(CONVERSATIONS, 1):
        messages = [{"role": role, "content": content} for role, content in conversation]
        for thinking in (True, False) if encoder.name == "deepseek_v31" else (True,):
            try:
                ours = _encode(encoder, tokenizer, messages, thinking)
            except IngleError:
                continue  # a format that cannot express this conversation
            try:
                theirs = _render(environment, text, messages, variables, thinking)
            except MemoryError:  # a limit, as that of time
                raise
            except Exception as error:  # whatever a template does
                sentence = f"Conversation {number} makes it fail with {type(error).__name__}."
                hostile = type(error).__name__ == "SecurityError"
                status = "hostile" if hostile else "differs"
                template = msgspec.structs.replace(template, status=status, difference=sentence)
                return _with(
                    template, f"template.{status}", "refuse" if hostile else "doubt", sentence
                )
            if ours != theirs:
                difference = _difference(number, ours, theirs)
                template = msgspec.structs.replace(
                    template, status="differs", conversations=compared, difference=difference
                )
                sentence = "It writes another prompt than ingle's encoder, which is the one used."
                return _with(template, "template.differs", "doubt", sentence)
            compared += 1
    return Rendered(
        template=msgspec.structs.replace(template, status="same", conversations=compared)
    )


def _encode(
    encoder: Encoder, tokenizer: Tokenizer, messages: list[dict[str, str]], thinking: bool
) -> str:
    return tokenizer.decode(encoder.encode(messages, tokenizer, thinking=thinking), False)


def _render(
    environment: Any, text: str, messages: list[dict[str, str]], variables: dict[str, str],
    thinking: bool,
) -> str:  # fmt: skip
    out: list[str] = []
    total = 0
    for piece in environment.from_string(text).generate(
        messages=messages, add_generation_prompt=True, thinking=thinking,
        enable_thinking=thinking, **variables,
    ):  # fmt: skip
        total += len(piece)
        if total > _MAX_RENDERED:
            raise ValueError
        out.append(piece)
    return "".join(out)


def _hostile(environment: Any, text: str) -> str:
    """Why the syntax tree shows bad will, also in branches that no conversation takes; or ""."""
    from jinja2 import TemplateSyntaxError, nodes

    try:
        tree = environment.parse(text)
    except (TemplateSyntaxError, RecursionError):
        return "a template that cannot be parsed"
    loading = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if tree.find(loading):
        return "loads other templates"
    for node in tree.find_all((nodes.Getattr, nodes.Filter, nodes.Const)):
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            return "reaches for the inside of Python's objects"
        if isinstance(node, nodes.Filter) and node.name == "attr":
            return "looks up attributes by names it puts together"
        if isinstance(node, nodes.Const) and isinstance(node.value, str) and "__" in node.value:
            return "names the inside of Python's objects"
    return ""


def _templates(place: Folder) -> Iterator[tuple[str, str]]:
    """File and text of every template, the one that loaders take first."""
    for path in sorted(place.paths, key=lambda path: (path != "chat_template.jinja", path)):
        if path.endswith((".jinja", ".jinja2", ".j2")):
            raw = read_file((place.folder / path).resolve(), _MAX_TEMPLATE + 1)
            yield path, raw.decode("utf-8", "replace")
    for path in ("chat_template.json", "tokenizer_config.json"):
        found = read_object(place.folder, place.paths, path).get("chat_template")
        if isinstance(found, list):
            named = {str(t.get("name")): t.get("template") for t in found if isinstance(t, dict)}
            for name in sorted(named, key=lambda name: (name != "default", name)):
                yield path, str(named[name])
        elif isinstance(found, str):
            yield path, found


def _byte_tokenizer(added: tuple[tuple[int, str], ...]) -> Tokenizer:
    """A tokenizer of the folder's special tokens, and of single bytes for all other text."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    first = max((index for index, _ in added), default=-1) + 1
    model = {symbol: first + index for index, symbol in enumerate(byte_symbols())}
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": text, "special": True, **flags} for index, text in added
        ],
        "pre_tokenizer": {**byte_level, "trim_offsets": True},
        "decoder": {**byte_level, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": model, "merges": []},
    }
    return Tokenizer(content, 0, 0)


def _difference(number: int, ours: str, theirs: str) -> str:
    """Both texts from a little before the first difference on."""
    pairs = zip(ours, theirs, strict=False)
    at = next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs))
    )  # fmt: skip
    begin = max(0, at - 20)
    return text_of(
        f"conversation {number}, character {at}: the template writes "
        f"{theirs[begin : at + 40]!r}, ingle {ours[begin : at + 40]!r}"
    )


def _with(template: Template, name: str, severity: Severity, sentence: str) -> Rendered:
    finding = Finding(
        id=name, severity=severity, file=template.file, sentence=text_of(sentence[:500])
    )
    return Rendered(template=template, findings=(finding,))


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(token: Any) -> str:
    """The text of a token given as a string or as an object with a `content`."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> str:
    raise ValueError(message)
