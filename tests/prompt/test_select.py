"""Which format a folder gets, by name, template, model name and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingle.errors import ConfigError
from ingle.prompt.deepseek_coder import EOT
from ingle.prompt.select import ENCODERS, choose_encoder
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.tokenizer import build_tokenizer
from tests.prompt.vocabulary import ENDS, ROLES, SPECIALS, THOUGHT, TOOLS, V4, V41, byte_tokenizer

LLM = ENDS
CODER = (*ENDS, EOT)
V3 = (*ENDS, *ROLES, *TOOLS)
DISTILL = (*ENDS, *ROLES, *THOUGHT)
UE8M0 = {"quant_method": "fp8", "scale_fmt": "ue8m0"}


@pytest.mark.parametrize(
    ("config", "specials", "expected"),
    [
        ({"model_type": "llama"}, LLM, "deepseek_llm"),
        ({"model_type": "deepseek"}, LLM, "deepseek_llm"),
        ({"model_type": "deepseek_v2"}, LLM, "deepseek_llm"),
        ({"model_type": "deepseek_v2"}, V3, "deepseek_llm"),
        ({"model_type": "llama"}, CODER, "deepseek_coder"),
        ({"model_type": "deepseek_v3"}, V3, "deepseek_v3"),
        ({"model_type": "deepseek_v3"}, SPECIALS, "deepseek_r1"),
        ({"model_type": "deepseek_v3", "quantization_config": None}, SPECIALS, "deepseek_r1"),
        ({"model_type": "qwen2"}, DISTILL, "deepseek_r1"),
        ({"model_type": "llama"}, DISTILL, "deepseek_r1"),
        ({"model_type": "qwen3"}, DISTILL, "deepseek_r1"),
        ({"model_type": "deepseek_v3", "quantization_config": UE8M0}, SPECIALS, "deepseek_v31"),
        ({"model_type": "deepseek_v32"}, SPECIALS, "deepseek_v32"),
        ({"model_type": "deepseek_v32", "quantization_config": UE8M0}, V4, "deepseek_v32"),
        ({"model_type": "deepseek_v4"}, V4, "deepseek_v4"),
        ({"model_type": "deepseek_v4"}, V41, "deepseek_v41"),
        ({"model_type": "deepseek_v41"}, V41, "deepseek_v41"),
        ({"model_type": "deepseek_v3"}, V4, "deepseek_v4"),
        ({"model_type": "deepseek_v3"}, V41, "deepseek_v41"),
    ],
)
def test_by_files(config: dict[str, object], specials: tuple[str, ...], expected: str) -> None:
    assert choose_encoder(config, byte_tokenizer(specials)).name == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deepseek-ai/DeepSeek-V2.5-1210", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek_llm"),
        ("deepseek-ai/DeepSeek-Coder-V2-Instruct", "deepseek_llm"),
        ("deepseek-ai/deepseek-coder-6.7b-instruct", "deepseek_coder"),
        ("deepseek-ai/deepseek-moe-16b-chat", "deepseek_llm"),
        ("deepseek-ai/deepseek-llm-7b-chat", "deepseek_llm"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3"),
        ("models/DeepSeek-V3.1-Terminus", "deepseek_v31"),
        ("deepseek-ai/DeepSeek-R1", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek_r1_0528"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek_r1"),
        ("somewhere/checkpoint-4000", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek_v31"),
        ("deepseek-ai/DeepSeek-V3.2", "deepseek_v32"),
        ("deepseek-ai/DeepSeek-V3.2-Speciale", "deepseek_v32"),
        ("deepseek-ai/DeepSeek-V4-Pro-0813", "deepseek_v4"),
        ("models/DeepSeek-V4.1-Flash-1017", "deepseek_v41"),
    ],
)
def test_by_model_name(path: str, expected: str) -> None:
    config = {"model_type": "deepseek_v3", "_name_or_path": path}
    assert choose_encoder(config, byte_tokenizer()).name == expected


# The few characters of each official template that are looked for.
TEMPLATES = {
    "{{'### Instruction:\\n' + message['content'] + '\\n'}}": "deepseek_coder",
    "{{ 'User: ' + message['content'] + '\n\n' }}": "deepseek_llm",
    "{{'<｜User｜>' + message['content'] + '<｜Assistant｜>'}}": "deepseek_v3",
    "{{'<｜User｜>' + content}}{{'<｜Assistant｜><think>\\n'}}": "deepseek_r1",
    "{{'<｜User｜>' + content}}{{'<｜Assistant｜><think>\n'}}": "deepseek_r1",
    "{{'<｜User｜>' + content}}{% if '</think>' in content %}{{'<｜Assistant｜>'}}": "deepseek_r1",
    "{{'<｜User｜>' + content + '<｜Assistant｜>'}}{% if '</think>' in content %}": (
        "deepseek_r1_0528"
    ),
    "{{'<｜User｜>' + content}}{{'<｜Assistant｜></think>'}}{% if not thinking %}": "deepseek_v31",
    "{{'<｜User｜>'}}{{'<' + '｜DSML｜' + 'function_calls>'}}": "deepseek_v32",
    "{{'<｜User｜>'}}{{'<｜DSML｜tool_calls>'}}": "deepseek_v4",
    "{{'<｜System｜>'}}{{'<｜User｜>'}}{{'<｜DSML｜ calls>'}}": "deepseek_v41",
    "{{ '[INST]' + content }}": "deepseek_r1",  # says nothing, so the files decide
}


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.items())
def test_by_template(template: str, expected: str) -> None:
    config = {"model_type": "deepseek_v3"}
    assert choose_encoder(config, byte_tokenizer(), template=template).name == expected


def test_the_users_word_stands_above_all() -> None:
    config = {"model_type": "unheard-of"}
    for name in ENCODERS:
        chosen = choose_encoder(config, byte_tokenizer(ENDS), name=name, template="User: ")
        assert chosen.name == name
    with pytest.raises(ConfigError, match="choose one of deepseek_llm"):
        choose_encoder(config, byte_tokenizer(), name="chatml")


def test_unknown_families_are_refused() -> None:
    for config in ({"model_type": "deepseek_v5"}, {"model_type": "gpt2"}, {}):
        with pytest.raises(ConfigError, match="model_type"):
            choose_encoder(config, byte_tokenizer())
    with pytest.raises(ConfigError, match="vocabulary"):
        choose_encoder({"model_type": "qwen2"}, byte_tokenizer(ROLES + ENDS[1:], ENDS[1]))


def test_the_shipped_reasoner_is_an_r1(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    chosen = choose_encoder({"model_type": "deepseek_v3"}, Tokenizer.load(tmp_path))
    assert chosen.name == "deepseek_r1" and chosen.starts_in_reasoning
