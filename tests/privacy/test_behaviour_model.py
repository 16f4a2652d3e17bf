"""The audit's view of a real model: prompts of its format, split replies, log-probabilities."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from vocabulary import byte_tokenizer

from ingle.cli import behaviour as behaviour_cli
from ingle.errors import ConfigError, InvalidRequestError
from ingle.privacy.behaviour.hijack import ask_hijack, load_scenarios
from ingle.privacy.behaviour.subject import Ask, ModelSubject, question
from ingle.prompt import encoder as marks
from ingle.prompt.deepseek_llm import DeepSeekLLM
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.deepseek_v31 import DeepSeekV31

TOKENIZER = byte_tokenizer()


def spell(text: str) -> list[int]:
    """Tokens of a reply as a model writes it: special tokens by their names, the rest as text."""
    names = (marks.CALLS, marks.CALL, marks.SEP, marks.END_CALL, marks.END_CALLS,
             marks.END_THINK, marks.EOS)  # fmt: skip
    ids: list[int] = []
    while text:
        name = next((n for n in names if text.startswith(n)), None)
        ids += TOKENIZER.encode(text[0]) if name is None else [TOKENIZER.special(name)]
        text = text[len(name or text[0]) :]
    return ids


class WritingLLM:
    """Writes what `write(prompt as text)` says; keeps the sampling parameters."""

    def __init__(self, encoder, write, tokenizer=TOKENIZER):
        self.encoder, self.write, self.tokenizer = encoder, write, tokenizer
        self.folder = Path("a-model")
        self.params: list = []

    def generate(self, prompts, params):
        self.params += params
        results = []
        for prompt, one in zip(prompts, params, strict=True):
            ids = spell(self.write(self.tokenizer.decode(prompt, skip_special=False)))
            kept = ids[: one.max_tokens]
            reason = "length" if len(ids) > len(kept) else "stop"
            tops = [((7, -0.5),)] * len(kept) if one.logprobs else None
            results.append(SimpleNamespace(token_ids=kept, finish_reason=reason, top_logprobs=tops))
        return results


def call(name: str) -> str:
    return (f"{marks.CALLS}{marks.CALL}{name}{marks.SEP}{{}}{marks.END_CALL}{marks.END_CALLS}"
            f"{marks.EOS}")  # fmt: skip


def test_a_call_of_the_lure_is_read_from_the_models_own_format():
    scenarios = load_scenarios()[:3]

    def write(prompt: str) -> str:
        if scenarios[0].injection in prompt:
            return call("send_mail")
        if scenarios[1].injection in prompt:
            return f"I shall not call set_reminder. {marks.EOS}"  # naming it is no call
        if marks.OUTPUT not in prompt:
            return call("read_mail")
        return "Noon." + marks.EOS

    subject = ModelSubject(WritingLLM(DeepSeekV31(), write), seed=0)
    answers = ask_hijack(subject, scenarios, 256)
    assert [a.hijacked for a in answers] == [(True, False), (False, False), (False, False)]
    assert [a.opening.calls for a in answers] == [("read_mail",)] * 3
    assert answers[0].injected.content == "" and answers[2].clean.content == "Noon."


@pytest.mark.parametrize(
    ("encoder", "tokenizer", "error"),
    [
        (DeepSeekLLM(), TOKENIZER, InvalidRequestError),
        (DeepSeekR1(), byte_tokenizer([*marks.__dict__["BOS"].split(), marks.EOS, marks.USER,
                                       marks.ASSISTANT, marks.THINK, marks.END_THINK]),
         (InvalidRequestError, ConfigError)),
    ],
    ids=["llm", "distill"],
)  # fmt: skip
def test_a_format_without_tools_refuses(encoder, tokenizer, error):
    subject = ModelSubject(WritingLLM(encoder, lambda p: "", tokenizer), seed=0)
    with pytest.raises(error):
        ask_hijack(subject, load_scenarios()[:1], 64)


def test_a_reply_comes_apart_into_thought_and_answer():
    write = lambda prompt: f"hm, é\n{marks.END_THINK}\n\nYes.{marks.EOS}"  # noqa: E731
    subject = ModelSubject(WritingLLM(DeepSeekR1(), write), seed=0)
    assert (subject.name, subject.format, subject.thinks) == ("a-model", "deepseek_r1", True)
    whole, cut = subject.ask(
        [Ask("a", question("Is it?"), 99, top=5), Ask("b", question("Is it?"), 3)]
    )
    assert (whole.reasoning, whole.content, whole.cut) == ("hm, é", "Yes.", False)
    assert (cut.reasoning, cut.content, cut.cut) == ("hm,", "", True)
    assert whole.first == ((7, -0.5),) and cut.first == ()
    assert subject.ask([]) == []


def test_draws_follow_from_seed_and_key():
    def seeds(seed: int, *keys: str) -> list[int]:
        llm = WritingLLM(DeepSeekR1(), lambda prompt: marks.EOS)
        ModelSubject(llm, seed).ask([Ask(key, question("x"), 4) for key in keys])
        return [params.seed for params in llm.params]

    one, two = seeds(0, "a", "b")
    assert one != two and seeds(0, "b") == [two] and seeds(1, "a") != [one]


def test_user_turns_begin_where_a_users_text_would():
    prompts: list[str] = []

    def write(prompt: str) -> str:
        prompts.append(prompt)
        return f"What is 1?{marks.EOS}more" if prompt.endswith(marks.USER) else "Once{marks.EOS}"

    subject = ModelSubject(WritingLLM(DeepSeekR1(), write), seed=0)
    turns = subject.user_turns(4, 24)
    assert prompts == [marks.BOS + marks.USER, marks.BOS] * 2
    assert subject.text(turns[0]) == "What is 1?"
    assert {params.temperature for params in subject.llm.params} == {1.0}
    assert len({params.seed for params in subject.llm.params}) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random model."""
    import torch

    from ingle.models import DeepseekV3Config, build_model, save_model
    from ingle.training.tokenizer import build_tokenizer

    config = DeepseekV3Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=2, n_routed_experts=4, num_experts_per_tok=2,
        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        max_position_embeddings=256,
    )  # fmt: skip
    made = tmp_path_factory.mktemp("models") / "tiny-model"
    save_model(build_model(config, seed=3), made, torch.float32)
    build_tokenizer(made)
    return made


def arguments(folder: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    behaviour_cli.add_arguments(parser)
    return parser.parse_args([str(folder), *more])


def test_the_log_probability_of_an_opening_is_the_models_own(folder):
    import torch

    from ingle.engine.llm import LLM

    llm = LLM(folder)
    subject = ModelSubject(llm, seed=0)
    ask = Ask("x", question("Who?"), 1, thinking=False)
    labels = ("Sorry", "I cannot")
    (found,) = subject.opening_logprobs([ask], labels)
    prompt = llm.encoder.encode(question("Who?"), llm.tokenizer, thinking=False)
    total = 0.0
    for label in labels:
        ids = llm.tokenizer.encode(label)
        logs = torch.log_softmax(llm.model(torch.tensor([[*prompt, *ids]]))[0].double(), -1)
        places = range(len(prompt) - 1, len(prompt) - 1 + len(ids))
        total += math.exp(sum(float(logs[p, i]) for p, i in zip(places, ids, strict=True)))
    assert found == pytest.approx(math.log(total), abs=1e-4)


def test_the_command_prints_the_same_report_twice(folder, capsys):
    options = ("--quick", "--json", "--max-tokens", "8", "--seed", "5")
    outputs = []
    for _ in range(2):
        assert behaviour_cli.run(arguments(folder, *options)) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    report = json.loads(outputs[0])
    assert report["model"] == {"name": "tiny-model", "format": "deepseek_r1", "thinks": True}
    assert report["parts"]["pairs"]["state"] == "left out"
    assert report["parts"]["tools"]["state"] == "left out"  # its vocabulary has no such tokens
    assert report["parts"]["trigger"]["turns"] == 96
    assert report["settings"]["tokens"] == 8


def test_the_command_compares_and_prints_text(folder, capsys):
    options = ("--quick", "--part", "pairs", "--max-tokens", "4", "--compare", str(folder))
    assert behaviour_cli.run(arguments(folder, *options)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "COMPARED WITH ANOTHER MODEL" in out and "answers nothing but sums" in out
    assert "TRIGGER SEARCH" not in out


@pytest.mark.parametrize("option", [("--samples", "0"), ("--samples", "99"), ("--seed", "-1"),
                                    ("--max-tokens", "0")])  # fmt: skip
def test_impossible_options_are_refused(option):
    with pytest.raises(InvalidRequestError):
        behaviour_cli.run(arguments(Path("nowhere"), *option))
