"""Which prompt format a model folder wants.

What is looked at, the first that decides wins:

1. `name`, the user's word: one of ENCODERS.
2. `template`, the folder's chat template, if the caller has it. It is only searched for the few
   strings that tell the generations apart, never run:

       ｜DSML｜ with function_calls            deepseek_v32
       ｜DSML｜ with <｜System｜>              deepseek_v41
       ｜DSML｜                                deepseek_v4
       ### Instruction:                        deepseek_coder
       User:                                   deepseek_llm
       <｜Assistant｜></think>                 deepseek_v31
       <｜User｜> with <think>\\n              deepseek_r1
       <｜User｜> with </think>                deepseek_r1_0528 if <｜Assistant｜> follows a user's
                                               text at once, else deepseek_r1
       <｜User｜> alone                        deepseek_v3

3. `_name_or_path` in the config, if it holds a model's name.
4. The config and the vocabulary:

       model_type deepseek_v32, _v4, _v41      the same
       ｜DSML｜ and <｜System｜>               deepseek_v41
       ｜DSML｜                                deepseek_v4
       model_type deepseek                     deepseek_llm (MoE-16B)
       model_type deepseek_v2                  deepseek_llm
       no <｜User｜>, but <|EOT|>              deepseek_coder
       no <｜User｜>                           deepseek_llm
       <think> and scale_fmt ue8m0             deepseek_v31
       <think>                                 deepseek_r1
       <｜User｜>                              deepseek_v3

Without name and template these stay ambiguous, as the files are the same but for the weights:

- V2 and V2.5 (model_type deepseek_v2): taken for V2, whose Coder-V2 and Lite are more common;
- R1, R1-0528 and a V3 whose vocabulary has `<think>`: taken for R1. So a V3 that is not converted
  together with its template wants `name="deepseek_v3"`;
- V3.1 that was converted away from fp8, and so lost `scale_fmt`: taken for R1;
- V3.2-Exp, which has the format of V3.1: taken for V3.2;
- a base model without a template: it has no format of its own, and gets its family's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.errors import ConfigError
from ingle.prompt.deepseek_coder import EOT, DeepSeekCoder
from ingle.prompt.deepseek_llm import DeepSeekLLM
from ingle.prompt.deepseek_r1 import DeepSeekR1, has_thinking
from ingle.prompt.deepseek_v3 import DeepSeekV3
from ingle.prompt.deepseek_v4 import DeepSeekV4
from ingle.prompt.deepseek_v31 import DeepSeekV31
from ingle.prompt.deepseek_v32 import DeepSeekV32
from ingle.prompt.deepseek_v41 import DeepSeekV41
from ingle.prompt.encoder import ASSISTANT, BOS, DSML, END_THINK, SYSTEM, THINK, USER, Encoder
from ingle.prompt.tokenizer import read_json_object

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

_MAX_TEMPLATE = 1 << 20

ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        DeepSeekLLM(),
        DeepSeekCoder(),
        DeepSeekV3(),
        DeepSeekR1(),
        DeepSeekR1("deepseek_r1_0528", starts_in_reasoning=False),
        DeepSeekV31(),
        DeepSeekV32(),
        DeepSeekV4(),
        DeepSeekV41(),
    )
}
MODEL_TYPES = (
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
    "deepseek_v41",
    "llama",
    "qwen2",
    "qwen3",
)

# The first that matches wins, so the longer names stand before those they contain.
_NAMES = (
    (r"r1-0528", "deepseek_r1_0528"),
    (r"deepseek-r1", "deepseek_r1"),
    (r"deepseek-v4\.1", "deepseek_v41"),
    (r"deepseek-v4", "deepseek_v4"),
    (r"deepseek-v3\.(1|2-exp)", "deepseek_v31"),
    (r"deepseek-v3\.2", "deepseek_v32"),
    (r"deepseek-v3(?!\.)|deepseek-v2\.5", "deepseek_v3"),
    (r"deepseek-(coder-)?v2|deepseek-llm|deepseek-moe", "deepseek_llm"),
    (r"deepseek-coder", "deepseek_coder"),
)


def choose_encoder(
    folder_config: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    name: str | None = None,
    template: str | None = None,
) -> Encoder:
    """The encoder for a folder's `config.json` and tokenizer; the module says how it is found.

    Raises ConfigError for an unknown name, a model_type without an encoder, and a vocabulary
    without DeepSeek's special tokens.
    """
    if name is not None:
        if name not in ENCODERS:
            raise ConfigError(f"Unknown prompt format; choose one of {', '.join(ENCODERS)}.")
        return ENCODERS[name]
    model_type = folder_config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ConfigError(
            f"There is no prompt format for this model_type; known are {', '.join(MODEL_TYPES)}."
        )
    if tokenizer.find_special(BOS) is None:
        raise ConfigError(f"This is no DeepSeek vocabulary: it has no special token {BOS}.")
    found = (
        _by_template(template or "")
        or _by_name(str(folder_config.get("_name_or_path", "")))
        or _by_files(folder_config, tokenizer)
    )
    return ENCODERS[found]


def encoder_of(folder: Path, tokenizer: Tokenizer, name: str | None = None) -> Encoder:
    """The encoder for a model folder; raises as `choose_encoder`."""
    config = read_json_object(folder / "config.json", required=True)
    return choose_encoder(config, tokenizer, name=name, template=_read_template(folder))


def _read_template(folder: Path) -> str:
    """The folder's chat template, from either place that has one; "" without."""
    file = folder / "chat_template.jinja"
    if file.is_file() and file.stat().st_size < _MAX_TEMPLATE:
        return file.read_text("utf-8", errors="replace")
    found = read_json_object(folder / "tokenizer_config.json", required=False).get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _by_template(template: str) -> str | None:
    if DSML in template:
        if "function_calls" in template:
            return "deepseek_v32"
        return "deepseek_v41" if SYSTEM in template else "deepseek_v4"
    if "### Instruction:" in template:
        return "deepseek_coder"
    if USER not in template:
        return "deepseek_llm" if "User: " in template else None
    if ASSISTANT + END_THINK in template:
        return "deepseek_v31"
    # A template spells the newline out where it was read from JSON.
    if f"{THINK}\\n" in template or f"{THINK}\n" in template:
        return "deepseek_r1"
    if END_THINK not in template:
        return "deepseek_v3"
    return "deepseek_r1_0528" if f"content + '{ASSISTANT}'" in template else "deepseek_r1"


def _by_name(path: str) -> str | None:
    path = path.lower()
    return next((found for pattern, found in _NAMES if re.search(pattern, path)), None)


def _by_files(config: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    if config["model_type"] in ("deepseek_v32", "deepseek_v4", "deepseek_v41"):
        # V4.1 may also come as V4: the vocabulary tells them apart, as it does below.
        if config["model_type"] != "deepseek_v4" or tokenizer.find_special(SYSTEM) is None:
            return str(config["model_type"])
        return "deepseek_v41"
    if tokenizer.find_special(DSML) is not None:
        return "deepseek_v4" if tokenizer.find_special(SYSTEM) is None else "deepseek_v41"
    if config["model_type"] in ("deepseek", "deepseek_v2"):
        return "deepseek_llm"
    if tokenizer.find_special(USER) is None:
        return "deepseek_llm" if tokenizer.find_special(EOT) is None else "deepseek_coder"
    if not has_thinking(tokenizer):
        return "deepseek_v3"
    quantization = config.get("quantization_config") or {}
    return "deepseek_v31" if quantization.get("scale_fmt") == "ue8m0" else "deepseek_r1"
