"""Damaged weight files end in a WeightsError, before anything is mapped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ingle.errors import WeightsError
from ingle.models import build_model, load_model, save_model
from ingle.training.presets import model_preset
from ingle.weights.header import read_header, weight_files
from ingle.weights.names import unstack_experts
from ingle.weights.safetensors import read_tensors
from tests.weights.parts import split_weights


def write(path: Path, header: dict | bytes, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(low: int, high: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [low, high]}


def test_what_the_library_writes_is_read_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "odd": torch.arange(3, dtype=torch.uint8),  # leaves the next start unaligned
        "b": torch.randn(7).bfloat16(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    found = dict(read_tensors(tmp_path / "x.safetensors"))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", 1 << 62),
        (b"{", b"", None),
        (b"\xff\xfe{}", b"", None),
        (b"[]", b"", None),
        (b"[" * 100_000, b"", None),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
         b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234", None),
        ({"a": entry(0, 8, [1])}, b"12345678", None),
        ({"a": entry(0, 4, [1])}, b"12", None),
        ({"a": entry(0, 4, [1])}, b"12345", None),
        ({"a": entry(4, 8, [1])}, b"12345678", None),
        ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, b"1234", None),
        ({"a": entry(0, 4, [-1])}, b"1234", None),
        ({"a": entry(0, 4, [True])}, b"1234", None),
        ({"a": entry(0, 4, [1], "F31")}, b"1234", None),
        ({"a": {"dtype": "F32"}}, b"", None),
        ({"a": 7}, b"", None),
        ({"a": entry(0, 1 << 62, [1 << 60])}, b"1234", None),
    ],
)  # fmt: skip
def test_a_damaged_header_is_refused(
    header: dict | bytes, data: bytes, length: int | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(WeightsError):
        read_header(path)


def test_every_truncation_of_a_real_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.randn(4, 4), "b": torch.randn(3)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            read_header(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "missing.safetensors"])
def test_an_index_cannot_point_outside_or_at_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"")
    folder = tmp_path / "model"
    folder.mkdir()
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError):
        weight_files(folder)


def test_experts_survive_unstacking_and_stacking(tmp_path: Path) -> None:
    model = build_model(model_preset("nano"), kernels="reference")
    official = unstack_experts(model.state_dict())
    assert "model.layers.1.mlp.experts.7.up_proj.weight" in official
    save_model(model, tmp_path, torch.float32)
    back = load_model(tmp_path, kernels="reference").state_dict()
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_a_missing_expert_tensor_or_shard_is_named(tmp_path: Path) -> None:
    save_model(build_model(model_preset("nano"), kernels="reference"), tmp_path, torch.float32)
    file = tmp_path / "model.safetensors"
    whole = {name: tensor.clone() for name, tensor in read_tensors(file)}
    for gone in ("model.layers.2.mlp.experts.3.up_proj.weight", "model.norm.weight"):
        save_file({k: v for k, v in whole.items() if k != gone}, file)
        with pytest.raises(WeightsError, match=r"experts|model\.norm"):
            load_model(tmp_path)
    save_file(whole | {"model.norm.weight": torch.ones(3)}, file)
    with pytest.raises(WeightsError, match="shape"):
        load_model(tmp_path)
    save_file(whole | {"stranger": torch.ones(3)}, file)
    with pytest.raises(WeightsError, match="stranger"):
        load_model(tmp_path)


def test_a_sharded_checkpoint_loads_as_the_single_file_does(tmp_path: Path) -> None:
    model = build_model(model_preset("nano"), kernels="reference")
    save_model(model, tmp_path, torch.float32)
    split_weights(tmp_path)
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())
