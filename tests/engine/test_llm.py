"""`LLM`: folders in, results out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle import LLM, SamplingParams
from ingle.engine.config import EngineConfig
from ingle.engine.defaults import read_generation_config
from ingle.engine.sampler import Sample
from ingle.errors import (
    ConfigError,
    ContextLengthError,
    IngleError,
    InvalidRequestError,
    ModelNotFoundError,
)
from ingle.models import build_model, save_model
from ingle.prompt.tokenizer import byte_symbols
from tests.engine.test_real_model import CONFIG

SPECIALS = (
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
    "<think>", "</think>",
)  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges: ids 0..255 are the bytes, then the specials."""
    added = [
        {"id": 256 + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, name in enumerate(SPECIALS)
    ]  # fmt: skip
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": {symbol: i for i, symbol in enumerate(byte_symbols())},
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    names = {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    config = replace(CONFIG, vocab_size=262, bos_token_id=256)
    save_model(build_model(config, seed=3), path, torch.float32)
    write_tokenizer(path)
    defaults = {"temperature": 0.6, "top_p": 0.95, "do_sample": True, "eos_token_id": [257]}
    (path / "generation_config.json").write_text(json.dumps(defaults), "utf-8")
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder, max_sequences=4, max_waiting=2)


GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


def test_text_and_ids_one_and_many(llm: LLM) -> None:
    (one,) = llm.generate("Hello", GREEDY)
    (ids,) = llm.generate([256, *b"Hello"], GREEDY)
    assert one.token_ids == ids.token_ids and one.text == ids.text
    assert one.usage.prompt_tokens == 6 and one.usage.completion_tokens == len(one.token_ids)
    assert one.finish_reason in ("stop", "length") and one.logprobs is None and one.reasoning == ""
    prompts = [f"Question {i}" for i in range(20)]  # more than may wait at once
    many = llm.generate(prompts, [SamplingParams(seed=i, max_tokens=5 + i) for i in range(20)])
    for i, result in enumerate(many):
        (again,) = llm.generate(prompts[i], SamplingParams(seed=i, max_tokens=5 + i))
        assert again.token_ids == result.token_ids


def test_text_is_the_decoded_ids(llm: LLM) -> None:
    assert llm.tokenizer is not None
    for result in llm.generate(["a", "b", "c"], SamplingParams(seed=1, max_tokens=60)):
        assert result.text == llm.tokenizer.decode(result.token_ids)


def test_logprobs(llm: LLM) -> None:
    (result,) = llm.generate("abc", SamplingParams(temperature=0.0, max_tokens=6, logprobs=2))
    assert result.logprobs is not None and result.top_logprobs is not None
    ids = torch.tensor([[256, *b"abc", *result.token_ids]])
    reference = torch.log_softmax(llm.model(ids)[0], -1)  # type: ignore[operator]
    for i, (token, logprob) in enumerate(zip(result.token_ids, result.logprobs, strict=True)):
        assert logprob == pytest.approx(reference[3 + i, token].item(), abs=1e-4)
        assert result.top_logprobs[i][0] == (token, logprob)


def test_chat_splits_reasoning_from_the_answer(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    (plain,) = llm.chat(messages, SamplingParams(seed=0, max_tokens=20))
    assert plain.usage.prompt_tokens == len("Hi") + 5
    (no_thought,) = llm.chat(messages, GREEDY, thinking=False)
    assert no_thought.reasoning == ""
    two = llm.chat([messages, messages], GREEDY)
    assert two[0].token_ids == two[1].token_ids and two[0].reasoning == two[1].reasoning

    script = iter([*b"so\n", 261, *b"\n\n7", 257])
    monkeypatch.setattr(
        llm.engine._sampler, "sample", lambda logits, rows: [Sample(next(script)) for _ in rows]
    )
    monkeypatch.setattr(llm.engine._controller, "_mode", "off")  # the script knows no drafts
    (scripted,) = llm.chat(messages, GREEDY)
    assert (scripted.reasoning, scripted.text) == ("so", "7")
    assert scripted.finish_reason == "stop" and scripted.token_ids[-1] == 257


def test_refusals_come_before_any_work(llm: LLM) -> None:
    with pytest.raises(ContextLengthError):
        llm.generate(["fine", "x" * 600], GREEDY)
    with pytest.raises(InvalidRequestError):
        llm.generate(["a", "b"], [GREEDY])
    with pytest.raises(InvalidRequestError):
        llm.generate([[]], GREEDY)
    assert not llm.engine.has_work and llm.generate([]) == []


def test_an_interrupted_call_leaves_a_usable_engine(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = llm.generate("Hello", GREEDY)
    forward, calls = llm.engine._runner.forward, iter(range(100))

    def interrupted(spans: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return forward(spans)

    monkeypatch.setattr(llm.engine._runner, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate([f"{i}" for i in range(9)], SamplingParams(max_tokens=50))
    assert not llm.engine.has_work and llm.engine.stats().pages_used == 0
    (after,) = llm.generate("Hello", GREEDY)
    assert after.token_ids == before.token_ids


def test_a_broken_model_is_an_error_not_a_result(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(spans: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(llm.engine._runner, "forward", broken)
    with pytest.raises(IngleError, match="model failed"):
        llm.generate("Hello", GREEDY)
    assert not llm.engine.has_work


def test_defaults_come_from_the_generation_config(llm: LLM, folder: Path, tmp_path: Path) -> None:
    assert llm.default_params == SamplingParams(temperature=0.6, top_p=0.95)
    assert llm.engine.eos_ids == {257}
    file = tmp_path / "generation_config.json"
    assert read_generation_config(tmp_path).eos_ids is None
    file.write_text('{"do_sample": false, "temperature": 0.6, "eos_token_id": 5}')
    defaults = read_generation_config(tmp_path)
    assert defaults.params.temperature == 0.0 and defaults.eos_ids == (5,)
    for bad in ("[]", "{", '{"temperature": 99}', '{"eos_token_id": "x"}', '{"top_p": "high"}'):
        file.write_text(bad)
        with pytest.raises(ConfigError):
            read_generation_config(tmp_path)


def test_quant_and_folder_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int4"):
        LLM(folder, quant="magic")  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError):
        LLM(tmp_path / "nothing")
    half = LLM(folder, quant="bf16")
    assert half.engine.stats().bytes_per_token == 3 * 24 * 2
    assert len(half.generate("Hello", GREEDY)[0].token_ids) > 0


def test_a_model_can_be_trained_after_it_has_generated() -> None:
    model = build_model(CONFIG, seed=3)
    llm = LLM.of(model, None, EngineConfig(max_sequences=2))
    (result,) = llm.generate([1, 2, 3], GREEDY)
    model(torch.tensor([result.token_ids])).sum().backward()
    assert all(p.grad is not None for p in model.lm_head.parameters())


def test_of_a_model_in_memory_without_a_tokenizer() -> None:
    llm = LLM.of(build_model(CONFIG, seed=3), None, EngineConfig(max_sequences=2))
    (result,) = llm.generate([1, 2, 3], GREEDY)
    assert len(result.token_ids) == 12 and result.text == ""
    with pytest.raises(InvalidRequestError):
        llm.generate("text")


def test_stop_strings_end_the_answer_of_a_chat_not_its_thought() -> None:
    reasoner = LLM(max_sequences=1)
    question = [{"role": "user", "content": "47+85="}]
    greedy = SamplingParams(temperature=0.0, max_tokens=200)
    (free,) = reasoner.chat(question, greedy)
    assert "3" in free.reasoning and free.text == "132"
    (stopped,) = reasoner.chat(question, replace(greedy, stop=("3",)))
    assert (stopped.reasoning, stopped.text) == (free.reasoning, "1")
