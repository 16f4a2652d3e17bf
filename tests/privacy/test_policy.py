"""Every rule refuses what it is for and nothing else; policies are read strictly."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingle.errors import PolicyError
from ingle.privacy import policy_rules
from ingle.privacy.facts import (
    Address,
    Check,
    CodeFact,
    Evidence,
    Facts,
    FileFact,
    Finding,
    Identity,
    Licence,
    Template,
    Tokenizer,
    Weights,
)
from ingle.privacy.policy import KEYS, PRESETS, Policy, judge, load_policy, needs_contents

DIGEST = "a" * 64
PEM = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"


def evidence(kind: str, status: Any = "verified") -> Evidence:
    return Evidence(kind=kind, status=status, sentence="so it is")


def finding(severity: Any, name: str = "file.case") -> Finding:
    return Finding(id=name, severity=severity, file="a", sentence="odd")


GOOD = Facts(
    digest=DIGEST,
    identity=Identity(
        name="deepseek-ai/DeepSeek-R1", model_type="deepseek_v3",
        architecture="DeepseekV3ForCausalLM", recognised="deepseek_v3", supported=True,
        parameters=1000, config_parameters=1000, sentence="R1",
    ),
    files=(
        FileFact(path="README.md", bytes=10, sha256=DIGEST, kind="card"),
        FileFact(path="model.safetensors", bytes=2000, sha256=DIGEST, kind="safetensors"),
    ),
    provenance=(evidence("hub-cache"), evidence("known-release"), evidence("signature"),
                evidence("attestation"), evidence("bom")),
    licence=Licence(recognised=("MIT",), declared="MIT", expected=("MIT",), agrees=True),
    template=Template(file="tokenizer_config.json", encoder="deepseek_r1", status="same"),
    tokenizer=Tokenizer(file="tokenizer.json", checks=(Check(id="x", status="ok", sentence=""),)),
    weights=Weights(files=1, tensors=1, bytes=2000, dtypes={"BF16": 1000}),
    addresses=(Address(file="README.md", kind="url", text="https://x.example", count=1),),
    behaviour_report=DIGEST,
)  # fmt: skip


def but(**changes: Any) -> Facts:
    return msgspec.structs.replace(GOOD, **changes)


def identity(**changes: Any) -> Facts:
    return but(identity=msgspec.structs.replace(GOOD.identity, **changes))


def only(*rows: Evidence) -> Facts:
    return but(provenance=rows)


CODE = CodeFact(file="modeling.py", kind="python", sentence="A module.")
PICKLE = FileFact(path="w.bin", bytes=1, sha256=DIGEST, kind="pickle")

# rule: keys of the policy, facts it refuses (or leaves open), others it must not refuse
CASES: dict[str, tuple[dict[str, Any], list[Facts], list[Facts]]] = {
    "finding": ({}, [but(findings=(finding("refuse"),))], [but(findings=(finding("note"),))]),
    "contradiction": (
        {}, [only(evidence("hub-cache", "failed")), only(evidence("bom", "failed"))],
        [only(evidence("hub-cache", "unknown")), only()],
    ),
    "doubts": (
        {"doubts": "refuse"}, [but(findings=(finding("doubt"),))],
        [but(findings=(finding("note"),))],
    ),
    "network": ({"network": "none"}, [], []),  # has a test of its own: facts do not decide it
    "formats": ({"formats": ["safetensors"]}, [but(files=(*GOOD.files, PICKLE))], [GOOD]),
    "remote_code": (
        {"remote_code": "unneeded"},
        [msgspec.structs.replace(identity(supported=False), code=(CODE,))], [but(code=(CODE,))],
    ),
    "native": ({"native": True}, [identity(supported=False)], [GOOD]),
    "architectures": (
        {"architectures": ["deepseek_v3"]},
        [identity(model_type="llama"), identity(recognised="llama"), identity(model_type="")],
        [identity(recognised="")],
    ),
    "names": (
        {"names": ["deepseek-ai/*"]},
        [identity(name="deepseek-ai.evil/x"), identity(name="other/deepseek-ai/x")], [GOOD],
    ),
    "models": (
        {"models": ["sha256:" + DIGEST]}, [but(digest="b" * 64), but(digest="")], [GOOD],
    ),
    "refused_models": ({"refused_models": [DIGEST]}, [GOOD], [but(digest="b" * 64)]),
    "max_parameters": (
        {"max_parameters": 1000}, [identity(parameters=1001), identity(config_parameters=1001)],
        [GOOD],
    ),
    "max_bytes": ({"max_bytes": 2010}, [but(files=(*GOOD.files, PICKLE))], [GOOD]),
    "dtypes": (
        {"dtypes": ["BF16"]}, [but(weights=Weights(dtypes={"BF16": 1, "I8": 1}))], [GOOD],
    ),
    "template": (
        {"template": "known"},
        [but(template=Template(status=s)) for s in ("differs", "hostile", "undecided")],
        [but(template=Template())],
    ),
    "tokenizer": (
        {"tokenizer": "checked"},
        [but(tokenizer=Tokenizer(checks=(Check(id="x", status=s, sentence="y"),)))
         for s in ("failed", "undecided")] + [but(tokenizer=Tokenizer())],
        [GOOD],
    ),
    "digests": (
        {"digests": "known"},
        [only(), only(evidence("hub-cache"), evidence("attestation")),
         only(evidence("signature", "unknown")), only(evidence("known-file"))],
        [only(evidence("known-release")), only(evidence("signature"))],
    ),
    "attestation": (
        {"attestation": "required"},
        [only(evidence("bom")), only(evidence("attestation", "unknown"))],
        [only(evidence("attestation"))],
    ),
    "licences": (
        {"licences": ["MIT"]},
        [but(licence=Licence()), but(licence=Licence(recognised=("MIT", "GPL-3.0"))),
         but(licence=Licence(declared="other"))],
        [but(licence=Licence(declared="MIT"))],
    ),
    "licence_check": (
        {"licence_check": "agrees"}, [but(licence=Licence(agrees=False))], [but(licence=Licence())],
    ),
    "addresses": (
        {"addresses": "documents"},
        [but(addresses=(Address(file="model.safetensors", kind="ip", text="1.2.3.4", count=1),))],
        [GOOD, but(addresses=())],
    ),
    "hidden_files": (
        {"hidden_files": "refuse"}, [but(findings=(finding("note", "file.hidden"),))],
        [but(findings=(finding("note"),))],
    ),
    "behaviour_report": ({"behaviour_report": "required"}, [but(behaviour_report="")], [GOOD]),
}  # fmt: skip


def policy(**keys: Any) -> Policy:
    """`personal` but for some keys."""
    base = msgspec.to_builtins(load_policy("personal"))
    return msgspec.convert(base | keys, Policy)


def test_every_rule_has_its_case_and_its_key() -> None:
    ids = [rule.id for rule in policy_rules.RULES]
    assert set(CASES) == set(ids)
    assert len(set(ids)) == len(ids)
    others = {"start_undecided", "signing_keys"}  # say how a verdict is used, and whom to trust
    assert set(ids) - {"finding", "contradiction"} == set(KEYS) - others
    assert all(rule.sentence.endswith(".") for rule in policy_rules.RULES)


@pytest.mark.parametrize("rule", list(CASES))
def test_a_rule_refuses_what_it_is_for_and_no_more(rule: str) -> None:
    keys, against, fine = CASES[rule]
    assert against or rule == "network"
    for facts in against:
        verdict = judge(facts, policy(**keys))
        assert verdict.decision == "refused"
        assert {reason.rule for reason in verdict.reasons} == {rule}
        assert all(reason.sentence for reason in verdict.reasons)
        if keys and rule != "doubts":
            assert judge(facts, policy()).decision == "admitted"
    for facts in (GOOD, *fine) if rule != "refused_models" else fine:
        assert judge(facts, policy(**keys)).decision == "admitted"


@pytest.mark.parametrize("sealed", [True, False, None])
def test_a_policy_without_network_wants_the_seal(sealed: bool | None) -> None:
    verdict = judge(GOOD, policy(network="none"), sealed)
    assert verdict.decision == ("refused" if sealed is False else "admitted")
    assert judge(GOOD, policy(), sealed).decision == "admitted"


@pytest.mark.parametrize(
    ("doubts", "decision"),
    [("note", "admitted"), ("undecided", "undecided"), ("refuse", "refused")],
)
def test_doubts_are_told_left_open_or_refused(doubts: str, decision: str) -> None:
    verdict = judge(but(findings=(finding("doubt"),)), policy(doubts=doubts))
    assert verdict.decision == decision


def test_a_refusal_outweighs_a_doubt_and_both_are_told() -> None:
    verdict = judge(but(findings=(finding("doubt"), finding("refuse"))), policy())
    assert verdict.decision == "refused"
    assert [reason.rule for reason in verdict.reasons] == ["finding", "doubts"]


def test_the_other_levels_of_keys() -> None:
    strict = policy(remote_code="refuse")
    assert judge(but(code=(CODE,)), strict).decision == "refused"
    assert judge(GOOD, policy(addresses="none")).decision == "refused"
    assert judge(only(evidence("hub-cache")), policy(digests="unchanged")).decision == "admitted"
    assert judge(only(evidence("attestation")), policy(digests="unchanged")).decision == "admitted"
    assert judge(only(), policy(digests="unchanged")).decision == "refused"
    assert judge(only(evidence("known-release")), policy(digests="signed")).decision == "refused"
    assert judge(only(evidence("signature")), policy(digests="signed")).decision == "admitted"


def test_many_reasons_of_one_rule_are_counted() -> None:
    many = tuple(FileFact(path=f"{i}", bytes=1, sha256="", kind="pickle") for i in range(500))
    verdict = judge(but(files=many), policy(formats=["safetensors"]))
    assert len(verdict.reasons) == 21
    assert verdict.reasons[-1].sentence == "480 more of the same."


class TestPresets:
    def test_each_is_stricter_than_the_one_before(self) -> None:
        bad = [facts for _, against, _ in CASES.values() for facts in against]
        refused = [
            {
                i
                for i, facts in enumerate(bad)
                if judge(facts, load_policy(name)).decision == "refused"
            }
            for name in PRESETS
        ]
        for loose, strict in pairwise(refused):
            assert loose <= strict
        assert len(refused[0]) < len(refused[1]) < len(refused[2]) < len(refused[3]) + 1

    @pytest.mark.parametrize("name", PRESETS)
    def test_what_is_good_in_everything_is_admitted_by_all(self, name: str) -> None:
        assert judge(GOOD, load_policy(name), sealed=True).decision == "admitted"

    def test_only_the_personal_one_starts_without_reading_contents(self) -> None:
        assert [needs_contents(load_policy(name)) for name in PRESETS] == [False, True, True, True]

    def test_the_restricted_one_admits_nothing_unsigned(self) -> None:
        unsigned = only(*(row for row in GOOD.provenance if row.kind != "signature"))
        verdict = judge(unsigned, load_policy("restricted"))
        assert [reason.rule for reason in verdict.reasons] == ["digests"]
        assert "the policy names 0" in verdict.reasons[0].sentence


class TestFiles:
    def write(self, tmp_path: Path, text: str) -> str:
        path = tmp_path / "ours.toml"
        path.write_text(text, "utf-8")
        return str(path)

    def test_a_file_names_what_differs_from_its_base(self, tmp_path: Path) -> None:
        text = 'base = "workplace"\nmax_bytes = 5\nlicences = ["MIT"]\n'
        found = load_policy(self.write(tmp_path, text))
        assert (found.name, found.max_bytes, found.licences) == ("ours", 5, ("MIT",))
        assert found.digests == load_policy("workplace").digests
        assert load_policy(self.write(tmp_path, "")).digests == "any"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("remote-code = 1", "no policy has a key 'remote-code'; did you mean 'remote_code'"),
            ("zzz = 1", "no policy has a key 'zzz'; there are doubts, "),
            ("[formats]\nx = 1", "formats: "),
            ('template = "knwon"', "template: "),
            ("native = 1", "native: Expected `bool`, got `int`"),
            ('max_bytes = "5"', "max_bytes: "),
            ("max_bytes = -5", "a ceiling is a number from 0"),
            ("max_bytes = 1.5", "max_bytes: "),
            ("licences = [1]", "licences[0]"),
            ('formats = ["safetensor"]', "'safetensor' is none of safetensors"),
            ('models = ["abc"]', "'abc' is no digest of a folder"),
            ('refused_models = ["abc"]', "'abc' is no digest of a folder"),
            ('signing_keys = ["/etc/key.pub"]', "BEGIN PUBLIC KEY"),
            ('base = "government"', "base must be one of personal, workplace"),
            ('base = ["personal"]', "base must be one of"),
            ('name = "mine"', "no policy has a key 'name'"),
            ("a = ", "is not valid TOML"),
            ("a = 1\na = 2", "is not valid TOML"),
            ("a = " + "[" * 100_000, "is not valid TOML"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said_by_name(self, tmp_path: Path, text: str, said: str) -> None:
        with pytest.raises(PolicyError) as error:
            load_policy(self.write(tmp_path, text))
        assert said in str(error.value)
        assert str(tmp_path) not in str(error.value)

    def test_bytes_that_are_no_text_and_files_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "x.toml").write_bytes(b"\xff")
        with pytest.raises(PolicyError, match="not valid TOML"):
            load_policy(str(tmp_path / "x.toml"))
        (tmp_path / "y.toml").write_bytes(b"#" * (2 << 20))
        with pytest.raises(PolicyError, match="larger than any policy"):
            load_policy(str(tmp_path / "y.toml"))
        for missing in (tmp_path / "none", tmp_path, "strict"):
            with pytest.raises(PolicyError, match="There is no policy"):
                load_policy(str(missing))

    def test_keys_of_signers_are_kept(self, tmp_path: Path) -> None:
        text = f'digests = "signed"\nsigning_keys = ["""{PEM}"""]\n'
        assert load_policy(self.write(tmp_path, text)).signing_keys == (PEM,)
