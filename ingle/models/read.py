"""`config.json` of a model folder -> the config of its family."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from ingle.errors import ConfigError, ModelNotFoundError
from ingle.models.config import LinearScaling, Llama3Scaling, ModelConfig, RopeScaling, Yarn

# model_type -> its config's class; the module has the name of the model_type
FAMILIES = {
    "deepseek": "DeepseekConfig",
    "deepseek_v2": "DeepseekV2Config",
    "deepseek_v3": "DeepseekV3Config",
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
}
_SCALINGS: dict[str, type[RopeScaling]] = {
    scaling.kind: scaling for scaling in (Yarn, LinearScaling, Llama3Scaling)
}
_MAX_CONFIG_BYTES = 4 << 20
# Keys that change nothing in what the model computes when it serves.
_SILENT = {
    "architectures", "attention_dropout", "auto_map", "aux_loss_alpha", "bos_token_id", "dtype",
    "ep_size", "head_dim", "initializer_range", "max_window_layers", "model_type",
    "num_key_value_heads", "num_nextn_predict_layers", "output_router_logits", "pad_token_id",
    "pretraining_tp", "qk_head_dim", "quantization_config", "rope_interleave", "rope_parameters",
    "rope_scaling", "rope_theta", "router_aux_loss_coef", "seq_aux", "sliding_window",
    "tokenizer_class", "torch_dtype", "transformers_version", "use_cache", "use_mla",
    "_name_or_path", "keep_default_fp32", "id2label", "label2id",
}  # fmt: skip
# Keys of any family that must not ask for what no release of these families uses.
_FIXED = {"mlp_bias": False, "use_sliding_window": False, "moe_layer_freq": 1}


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object from a model folder; damage becomes a ConfigError."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{path.name} is larger than 4 MB; this is no model configuration.")
        value = json.loads(path.read_text("utf-8"), object_pairs_hook=_no_duplicates)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path.parent} holds no {path.name}; point to a folder in Hugging Face layout."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} must hold a JSON object.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values for one key: other readers might take the other one."""
    out = dict(pairs)
    if len(out) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} occurs twice")
    return out


def config_class(model_type: object) -> type[ModelConfig]:
    """The config class of a `model_type`; ConfigError for one that is no family of ours."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigError(
            f"config.json: model_type {model_type!r} is not supported; known: {known}."
        )
    found: type[ModelConfig] = getattr(
        import_module(f"ingle.models.{model_type}"), FAMILIES[model_type]
    )
    return found


def read_config(folder: Path) -> ModelConfig:
    """Read `folder/config.json`.

    Raises ModelNotFoundError without the file, ConfigError for another model type, a missing or
    mistyped key, impossible sizes, or a feature this family does not have.
    """
    return parse_config(read_json(folder / "config.json"))


def parse_config(raw: dict[str, Any]) -> ModelConfig:
    """The config in a parsed `config.json`; raises as `read_config`."""
    family = config_class(raw.get("model_type"))
    for key, only in (_FIXED | family.fixed).items():
        if raw.get(key, only) != only:
            raise ConfigError(f"config.json: {key} {raw[key]!r} is not supported, only {only!r}.")
    raw = family.normalise(raw)
    values: dict[str, Any] = {}
    for field in fields(family):
        value = raw.get(field.name)
        if field.name == "rope_scaling" or field.name not in raw:
            continue
        if value is None and "None" not in str(field.type) and field.default is not MISSING:
            continue  # an explicit null for "the default"
        values[field.name] = _typed(field.name, value, str(field.type))
    values |= _read_rope(raw)
    missing = [
        field.name for field in fields(family)
        if field.default is MISSING and field.name not in values
    ]  # fmt: skip
    if missing:
        raise ConfigError(f"config.json lacks {', '.join(missing)}.")
    return family(**values)


def unknown_keys(raw: dict[str, Any]) -> list[str]:
    """Keys of a parsed `config.json` whose meaning is not known here: worth a warning."""
    family = config_class(raw.get("model_type"))
    known = _SILENT | _FIXED.keys() | family.fixed.keys() | {f.name for f in fields(family)}
    return sorted(raw.keys() - known)


def _read_rope(raw: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` from either place that configs have had for them."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ConfigError("config.json: rope_scaling must be an object.")
    values: dict[str, Any] = {}
    if "rope_theta" in rope:
        values["rope_theta"] = _typed("rope_theta", rope["rope_theta"], "float")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return values
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise ConfigError(
            f"config.json: rope scaling {kind!r} is not supported, only {', '.join(_SCALINGS)}."
        )
    scaling = _SCALINGS[kind]
    found = {
        field.name: _typed(f"rope_scaling.{field.name}", rope[field.name], str(field.type))
        for field in fields(scaling)
        if rope.get(field.name) is not None
    }
    for field in fields(scaling):
        if field.default is MISSING and field.name not in found:
            raise ConfigError(f"config.json: rope_scaling lacks {field.name}.")
    return values | {"rope_scaling": scaling(**found)}


def _typed(name: str, value: Any, annotation: str) -> Any:
    """Check a JSON value against an annotation of the dataclass; bool is never a number."""
    if value is None and "None" in annotation:
        return None
    if "tuple" in annotation and isinstance(value, list) and all(_is_int(v) for v in value):
        return tuple(value)
    if annotation == "bool" and isinstance(value, bool):
        return value
    if annotation == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation.startswith("int"):
        if _is_int(value):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    raise ConfigError(f"config.json: {name} is {value!r}, expected {annotation}.")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
