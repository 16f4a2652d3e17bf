"""Model folders that are damaged or made to harm: each is refused with a message of its own, in
little memory, and without waiting."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle import LLM
from ingle.errors import IngleError
from ingle.models import build_model, save_model
from ingle.training.presets import VOCABULARY, model_preset
from ingle.training.tokenizer import build_tokenizer
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.safetensors import save_tensors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Spoil = Callable[[Path], object]


def raw_header(folder: Path) -> tuple[dict[str, Any], bytes]:
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(folder: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    size = len(header) if length is None else length
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + header + data)


def entry(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the header's entry of one tensor."""

    def spoil(folder: Path) -> None:
        header, data = raw_header(folder)
        change(header["model.norm.weight"])
        write(folder, json.dumps(header).encode(), data)

    return spoil


def config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        with Checkpoint(folder) as checkpoint:
            found = {name: checkpoint.read(name) for name in checkpoint.entries}
        change(found)
        save_tensors(folder / WEIGHTS, found, {})

    return spoil


def sharded(change: Callable[[Path, dict[str, str]], object]) -> Spoil:
    """Split the weights into two shards with an index, then spoil them."""

    def spoil(folder: Path) -> None:
        with Checkpoint(folder) as checkpoint:
            found = {name: checkpoint.read(name) for name in checkpoint.entries}
        names = sorted(found)
        (folder / WEIGHTS).unlink()
        weight_map = {}
        for shard, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
            save_tensors(folder / shard, {name: found[name] for name in part}, {})
            weight_map |= dict.fromkeys(part, shard)
        change(folder, weight_map)
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

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


def cut(count: int) -> Spoil:
    return lambda folder: os.truncate(folder / WEIGHTS, count)


def duplicate(folder: Path) -> None:
    header, data = raw_header(folder)
    one = json.dumps(header["model.norm.weight"])
    twice = json.dumps(header)[:-1] + f', "model.norm.weight": {one}' + "}"
    write(folder, twice.encode(), data)


def many(folder: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write(folder, json.dumps({f"t{i}": empty for i in range(200_001)}).encode(), b"")


def longer(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")


def moved(folder: Path, weight_map: dict[str, str]) -> None:
    weight_map["model.norm.weight"] = "a.safetensors"
    weight_map["lm_head.weight"] = "b.safetensors"


def both(folder: Path, _: dict[str, str]) -> None:
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def nested(depth: int) -> str:
    return "[" * depth


bad = "the entry of"
CASES: dict[str, tuple[Spoil, str]] = {
    "empty file": (cut(0), "truncated"),
    "four bytes": (cut(4), "truncated"),
    "cut in the header": (cut(300), "truncated"),
    "cut in the data": (cut(20_000), "truncated"),
    "longer than its header": (longer, "too long"),
    "header of 2 GB": (lambda f: write(f, b"{}", b"", 2 << 30), "truncated"),
    "header of 2**63": (lambda f: write(f, b"{}", b"", 2**63), "truncated"),
    "header that is no UTF-8": (lambda f: write(f, b"\xff\xfe{}", b""), "header is damaged"),
    "header that is no JSON": (lambda f: write(f, b"{oops}", b""), "header is damaged"),
    "header that is a list": (lambda f: write(f, b"[]", b""), "not an object"),
    "header nested deeply": (lambda f: write(f, nested(90_000).encode(), b""), "damaged"),
    "a name twice": (duplicate, "twice"),
    "200,001 tensors": (many, "claims to hold"),
    "overlap": (
        entry(lambda e: e.update(data_offsets=[0, e["data_offsets"][1] - e["data_offsets"][0]])),
        "overlap",
    ),
    "beyond the file": (
        entry(lambda e: e.update(data_offsets=[x + 10**12 for x in e["data_offsets"]])),
        "gap",
    ),
    "negative offset": (entry(lambda e: e.update(data_offsets=[-512, 0])), bad),
    "backward offsets": (entry(lambda e: e["data_offsets"].reverse()), bad),
    "one offset": (entry(lambda e: e["data_offsets"].pop()), bad),
    "unknown dtype": (entry(lambda e: e.update(dtype="F128")), bad),
    "other dtype": (entry(lambda e: e.update(dtype="F64")), bad),
    "shape of another size": (entry(lambda e: e.update(shape=[3])), bad),
    "astronomic shape": (entry(lambda e: e.update(shape=[2**62, 2**62])), bad),
    "shape of fractions": (entry(lambda e: e.update(shape=[128.0])), bad),
    "no shape": (entry(lambda e: e.pop("shape")), bad),
    "entry that is a string": (lambda f: write(f, b'{"a":"b"}', b""), bad),
    "a tensor more": (tensors(lambda t: t.update(stranger=torch.ones(2))), "unknown stranger"),
    "a tensor less": (tensors(lambda t: t.pop("model.norm.weight")), "lack model.norm"),
    "an expert less": (
        tensors(lambda t: t.pop("model.layers.1.mlp.experts.3.up_proj.weight")),
        "experts.3.up",
    ),
    "a misshapen tensor": (
        tensors(lambda t: t.update({"lm_head.weight": torch.ones(3, 3)})),
        "lm_head.weight has shape",
    ),
    "whole numbers": (
        tensors(lambda t: t.update({"model.norm.weight": torch.ones(128, dtype=torch.int32)})),
        "floating",
    ),
    "fp8 without scales": (
        tensors(
            lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)})
        ),
        "scale_inv",
    ),
    "only a pickle": (pickled, "pickle"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no model.safetensors"),
    "index to a file outside": (
        sharded(lambda f, m: m.update(x="../config.json")),
        "no file in the folder",
    ),
    "index to /etc/passwd": (sharded(lambda f, m: m.update(x="/etc/passwd")), "passwd"),
    "missing shard": (sharded(lambda f, m: (f / "a.safetensors").unlink()), "'a.safetensors'"),
    "index that lies": (sharded(moved), "The index says"),
    "a tensor in two shards": (sharded(both), "more than one shard"),
    "index of no JSON": (text(INDEX, "{"), "index.json is damaged"),
    "index without a map": (text(INDEX, '{"weight_map": [1, 2]}'), "index.json is damaged"),
    "weights linked from outside": (linked_out(WEIGHTS), "leads out"),
    "config linked from outside": (linked_out("config.json"), "config.json is a link"),
    "weights that are a device": (
        replaced(WEIGHTS, lambda p: p.symlink_to("/dev/zero")),
        "leads out",
    ),
    "weights that are a pipe": (replaced(WEIGHTS, os.mkfifo), "no plain file"),
    "tokenizer that is a pipe": (
        replaced("tokenizer.json", os.mkfifo),
        "tokenizer.json in the model folder is no plain file",
    ),
    "weights that are a folder": (replaced(WEIGHTS, Path.mkdir), "no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "config nested deeply": (text("config.json", nested(90_000)), "config.json is not valid JSON"),
    "config of 5 MB": (text("config.json", " " * (5 << 20)), "4 MB"),
    "config with a key twice": (text("config.json", '{"a": 1, "a": 2}'), "'a' occurs twice"),
    "a million layers": (config(num_hidden_layers=10**6), "num_hidden_layers"),
    "a vocabulary of 2**60": (config(vocab_size=2**60), "vocab_size"),
    "no number": (config(rms_norm_eps=float("nan")), "rms_norm_eps"),
    "code of its own": (config(model_type="mystery", auto_map={"AutoModel": "x.Y"}), "mystery"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "tokenizer of no JSON": (text("tokenizer.json", "{"), "tokenizer.json cannot be read"),
    "tokenizer that is a list": (text("tokenizer.json", "[]"), "one JSON object"),
    "tokenizer nested deeply": (text("tokenizer.json", nested(90_000)), "tokenizer.json cannot"),
    "tokenizer of another kind": (
        text("tokenizer.json", '{"added_tokens": [], "model": {}}'),
        "unknown form",
    ),
    "tokenizer with more tokens": (config(vocab_size=300), "do not belong together"),
    "generation config of nonsense": (
        text("generation_config.json", '{"temperature": "hot"}'),
        "generation_config",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    save_model(build_model(model_preset("nano")), folder, torch.float32)
    build_tokenizer(folder, VOCABULARY, 1024)
    return folder


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    spoil, words = CASES[name]
    spoil(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IngleError) as refused:
        LLM(folder)
    assert words in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_the_untouched_folder_loads(good: Path) -> None:
    assert LLM(good).generate("1", None)
