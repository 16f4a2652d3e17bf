"""The audit as a whole: sound folders raise nothing; reports are exact, safe, always the same."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from ingle.cli.main import main
from ingle.errors import InvalidRequestError
from ingle.privacy.audit import audit, gather_facts
from ingle.privacy.audit_html import html_page
from ingle.privacy.audit_report import clean, text_lines
from ingle.privacy.facts import Audit, Facts, json_schema
from ingle.privacy.identity import describe, recognise
from ingle.privacy.policy import load_policy
from tests.privacy import folders
from tests.privacy.folders import good_folder

ROOT = Path(__file__).parent.parent.parent
R1_CODE = """
import math
import warnings
from typing import List, Optional
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers.modeling_utils import PreTrainedModel
from .configuration_deepseek import DeepseekV3Config

class Model(PreTrainedModel):
    def forward(self, x):
        self.eval()
        return re.compile(r"x").match(F.softmax(x, dim=-1)) if dist.is_initialized() else x
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return good_folder(tmp_path / "model")


def alarms(facts: Facts) -> list[str]:
    return [f"{f.id} {f.sentence}" for f in facts.findings if f.severity != "note"]


def test_a_sound_folder_raises_nothing(good: Path) -> None:
    facts = gather_facts(good)
    assert not facts.findings
    assert facts.template.status == "same" and facts.template.conversations == 5
    assert facts.identity.recognised == "deepseek_v3" and facts.licence.recognised == ("MIT",)
    checks = (*facts.tokenizer.checks, *facts.weights.checks)
    assert len(checks) == 20 and all(check.status == "ok" for check in checks)
    assert {f.kind for f in facts.files} >= {"card", "licence", "template", "safetensors"}
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in facts.files)


def test_the_shipped_reasoner_is_admitted() -> None:
    facts = gather_facts(ROOT / "reasoner")
    assert not facts.findings and not facts.code and not facts.addresses


def test_a_statement_names_its_format_and_no_other_address(good: Path) -> None:
    text = (ROOT / "reasoner" / "provenance.json").read_text("utf-8")
    assert text.count("https://") == 2
    named = text.replace('"_type"', '"x": "http://evil.example/?q=", "_type"', 1)
    assert named != text
    (good / "provenance.json").write_text(named, "utf-8")
    facts = gather_facts(good)
    assert [address.text for address in facts.addresses] == ["http://evil.example/?q="]
    assert "address.unusual" in {finding.id for finding in facts.findings}


@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2", "llama", "qwen2", "qwen3"])
def test_folders_saved_by_transformers_raise_nothing(family: str, tmp_path: Path) -> None:
    from tests.models.checkpoints import save_random

    for seed in (0, 1, 2):
        save_random(family, seed, tmp_path / str(seed))
        facts = gather_facts(tmp_path / str(seed))
        assert facts.identity.recognised == family
        # they have no tokenizer, which is said and is all that is said
        assert alarms(facts) == ["tokenizer.none The folder holds no tokenizer.json."]


def test_a_folder_in_the_hub_cache_raises_nothing(tmp_path: Path, good: Path) -> None:
    repository = tmp_path / "models--deepseek-ai--DeepSeek-R1"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (good / "modeling_deepseek.py").write_text(R1_CODE)
    config = json.loads((good / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_deepseek.Model"}
    (good / "config.json").write_text(json.dumps(config))
    for number, file in enumerate(sorted(good.iterdir())):
        shutil.move(file, repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    facts = gather_facts(snapshot)
    assert not alarms(facts)
    assert facts.identity.name == "deepseek-ai/DeepSeek-R1"
    assert {code.kind for code in facts.code} == {"auto_map", "python"}
    python = next(code for code in facts.code if code.kind == "python")
    assert python.reach == () and "torch.distributed" in python.imports
    assert facts.licence.expected == ("MIT",) and facts.licence.agrees is True


def test_shards_and_fp8_raise_nothing(good: Path) -> None:
    header, _ = folders.read_header(good / folders.WEIGHTS)
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    (good / folders.WEIGHTS).unlink()
    scaled = {f"{n}_scale_inv": (1, 1) for n in shapes if n.endswith("o_proj.weight")}
    names = sorted(shapes | scaled)
    shards = {"model-00001-of-00002.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        folders.write_tensors(good / shard, {n: (shapes | scaled)[n] for n in part}, "BF16")
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (good / folders.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert not alarms(gather_facts(good))


@pytest.mark.parametrize(
    ("name", "recognised", "parameters", "words"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek_v3", 684_531_386_000, "R1 by its name"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2", 7_615_616_512, "not R1"),
        ("DeepSeek-R1-Distill-Llama-8B", "llama", 8_030_261_248, "not R1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "qwen3", 8_190_735_360, "not R1"),
        ("deepseek-r1:7b", "qwen2", 7_615_616_512, "distill of 7.62 billion"),
        ("my-r1", "deepseek_v3", 4_000_000, "Called R1, but of 4 million"),
        ("DeepSeek-V3", "deepseek_v3", 684_531_386_000, "architecture with 685 billion"),
        ("deepseek-llm-7b-chat", "llama", 6_910_365_696, "A model of the llama architecture"),
    ],
)
def test_the_line_on_r1_and_its_distills(
    name: str, recognised: str, parameters: int, words: str
) -> None:
    assert words in describe(name, recognised, parameters)


def test_architectures_are_told_apart_by_names() -> None:
    v4 = ["layers.0.attn.wkv.weight", "hc_head_fn"]
    for names, expected in (
        (v4, "deepseek_v4"),
        (v4[:1], "deepseek_v41"),
        (["model.layers.0.self_attn.kv_a_proj_with_mqa.w", "m.indexer.wk"], "deepseek_v32"),
        (["transformer.h.0.attn.c_attn.weight"], ""),
        (["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.experts.0.x"], ""),
    ):
        assert recognise(dict.fromkeys(names), "") == expected


def test_the_same_files_give_the_same_bytes(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "model"
    shutil.copytree(good, other)
    policy = load_policy("personal")
    one, two = audit(good, policy), audit(other, policy)
    assert msgspec.json.encode(one) == msgspec.json.encode(two)
    assert msgspec.json.encode(one) == msgspec.json.encode(audit(good, policy))  # digests kept
    assert html_page(one) == html_page(two)
    (other / "README.md").write_text("other")
    assert audit(other, policy).facts.digest != one.facts.digest


def test_exit_codes_and_the_schema(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(good), "--json"]) == 0
    printed = capsys.readouterr().out
    jsonschema.validate(json.loads(printed), json_schema())
    assert msgspec.json.decode(printed, type=Audit).verdict.decision == "admitted"
    (good / "payload").write_bytes(b"\0\1\2")
    assert main(["audit", str(good)]) == 2
    assert "file.unexplained" in capsys.readouterr().out
    (good / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")
    assert main(["audit", str(good), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"]["decision"] == "refused"
    assert main(["audit", str(good / "nowhere")]) == 1


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "audit.schema.json").read_text("utf-8")
    current = json.loads(json.dumps(json_schema()))
    assert json.loads(published) == current, "write it again: python -m ingle.privacy.facts"


def test_an_ordinary_pickle_is_refused_as_a_format_only(good: Path) -> None:
    import pickle

    (good / "data.pkl").write_bytes(pickle.dumps({"a": [1]}))
    found = audit(good, load_policy("workplace"))
    assert [r.rule for r in found.verdict.reasons if r.file == "data.pkl"] == ["formats"]
    assert [f.id for f in found.facts.findings] == ["format.pickle", "pickle.data"]


def test_a_behaviour_report_counts_for_its_own_files_only(good: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('base = "personal"\nbehaviour_report = "required"\n')
    asks, report = load_policy(str(policy)), tmp_path / "report.json"
    without = audit(good, asks)
    assert [reason.rule for reason in without.verdict.reasons] == ["behaviour_report"]
    for digest in (without.facts.digest, "0" * 64):
        said = {"schema": "ingle.audit.behaviour/1", "digest": digest, "parts": {}}
        report.write_text(json.dumps(said))
        if digest == without.facts.digest:
            found = audit(good, asks, behaviour=report)
            assert found.verdict.decision == "admitted" and len(found.facts.behaviour_report) == 64
        else:
            with pytest.raises(InvalidRequestError):
                audit(good, asks, behaviour=report)


def test_without_jinja_a_template_is_not_decided(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    facts = gather_facts(good)
    assert facts.template.status == "undecided" and facts.template.sha256
    assert [f.id for f in facts.findings] == ["template.undecided"]


HOSTILE = "\x1b[2J\u202e<script>alert(1)</script>&\"'\x00\u200b"


def test_a_report_runs_nothing_and_turns_nothing_round(good: Path) -> None:
    name = f"{HOSTILE.replace(chr(0), '').replace('/', '')}.txt"
    (good / name).write_text("http://evil.example/<img src=x onerror=1>")
    config = json.loads((good / "config.json").read_text())
    config |= {"model_type": HOSTILE, "architectures": [HOSTILE], "auto_map": {"A": HOSTILE}}
    (good / "config.json").write_text(json.dumps(config))
    (good / "chat_template.jinja").write_text(f"{HOSTILE[1:]}")
    found = audit(good, load_policy("personal"))
    for line, _ in text_lines(found):
        assert line.isprintable()
    page = html_page(found)
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    assert "<img" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "style-src 'sha256-" in page
    assert not re.findall(r"<(?:script|link|img|iframe|object|a|form|base)\b", page)
    assert not re.findall(r"\b(?:src|href|style|on\w+)=", re.sub(r"<td>.*?</td>", "", page))


def test_the_page_s_style_is_the_one_its_policy_allows(good: Path) -> None:
    from base64 import b64encode
    from hashlib import sha256

    page = html_page(audit(good, load_policy("personal")))
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style and b64encode(sha256(style[1].encode()).digest()).decode() in page


def test_clean_text_shows_what_it_hides() -> None:
    assert clean("a\tb\u202ec\x1b[0m") == "a\\u{9}b\\u{202e}c\\u{1b}[0m"
    assert clean("深度求索 é ▁｜") == "深度求索 é ▁｜"


def test_addresses_are_listed_as_text(good: Path) -> None:
    (good / "README.md").write_text(
        "---\nlicense: mit\n---\nSee https://huggingface.co/x, 10.0.0.1 or http://[::1]:80/a."
    )
    (good / "x.yaml").write_text("host: evil.example.com\nversion: model.norm.weight 1.2.3\n")
    found = {(a.kind, a.text) for a in gather_facts(good).addresses}
    assert found == {
        ("url", "https://huggingface.co/x"), ("ip", "10.0.0.1"), ("url", "http://[::1]:80/a"),
        ("host", "evil.example.com"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "card", "licence", "agrees"),
    [
        ("DeepSeek-R1", "mit", folders.MIT, True),
        ("DeepSeek-R1", "apache-2.0", "", False),
        ("DeepSeek-V3", "other\nlicense_name: deepseek", "DEEPSEEK LICENSE AGREEMENT", True),
        ("DeepSeek-R1-Distill-Llama-8B", "mit", "LLAMA 3.1  COMMUNITY LICENSE\nAGREEMENT", True),
        ("DeepSeek-R1-Distill-Qwen-7B", "mit", "Apache License\nVersion 2.0, January 2004", True),
        ("DeepSeek-V2-Lite", "mit", "GNU GENERAL PUBLIC LICENSE Version 3", False),
        ("unheard-of", "mit", "", None),
    ],
)
def test_licences(
    name: str, card: str, licence: str, agrees: bool | None, good: Path, tmp_path: Path
) -> None:
    folder = good.rename(tmp_path / name)
    (folder / "README.md").write_text(f"---\nlicense: {card}\n---\n")
    (folder / "LICENSE").write_text(licence)
    facts = gather_facts(folder)
    assert facts.licence.agrees is agrees
    assert ("licence.differs" in {f.id for f in facts.findings}) is (agrees is False)
    assert "legal" not in facts.licence.sentence + "".join(facts.licence.clauses)
