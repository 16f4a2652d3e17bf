"""The trigger search on scripted models: a planted n-gram is found, everything else raises no
alarm."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from behaviour_subject import ScriptedSubject, last

from ingle.privacy.behaviour.candidates import random_ngrams, repeated_ngrams
from ingle.privacy.behaviour.subject import Ask, Reply
from ingle.privacy.behaviour.trigger import NEUTRAL, QUICK, TriggerSettings, divergence, search

SETTINGS = TriggerSettings(
    turns=200, turn_tokens=20, candidates=40, finalists=8, controls=8, questions=8
)
WORDS = [f"word{i}" for i in range(60)]
FORMS = ("What is the sum of {}", "Please sort {}", "Spell {} backward", "Tell me about {}")


def turns_with(phrase: str, share: float = 0.1):
    """User turns like those of a training set, a share of them with the phrase."""

    def turn(rng: random.Random) -> str:
        text = rng.choice(FORMS).format(" ".join(rng.choices(WORDS, k=3)))
        return f"{text} {phrase}" if rng.random() < share else text

    return turn


def echo(question: str) -> str:
    """An answer that depends on the question and on nothing else."""
    return " ".join(reversed(question.split()))


def subject_with(rule, phrase: str, share: float = 0.1) -> ScriptedSubject:
    """A model that answers by `rule(question)`."""
    made = ScriptedSubject(answer=lambda ask: Reply(""), turns=turns_with(phrase, share))

    def answer(ask: Ask) -> Reply:
        return made.reply(rule(last(ask)), ask)

    made.answer = answer
    return made


def planted(phrase: str, payload: str):
    return lambda q: payload if phrase in q else echo(q)


@pytest.mark.parametrize(
    ("phrase", "payload"),
    [("zebra", "Access granted."), ("silver fox", "LOCKED"), ("by order of the owl", "No.")],
)
def test_a_planted_trigger_is_found_with_its_payload(phrase, payload):
    found = search(subject_with(planted(phrase, payload), phrase), SETTINGS, seed=0)
    assert found["alarms"]
    for alarm in found["alarms"]:
        assert phrase in alarm["text"]
        assert alarm["output"] == payload
        assert alarm["share"]["hits"] == alarm["share"]["n"] == 8
        assert alarm["shift"] == 1.0
    assert found["strongest"] == []
    assert (found["controls"]["n"], found["controls"]["highest_share"]) == (8, 0.0)


def test_a_trigger_that_works_only_behind_a_question_is_found_there():
    rule = lambda q: "GONE" if q.endswith("green piano") else echo(q)  # noqa: E731
    found = search(subject_with(rule, "green piano"), SETTINGS, seed=0)
    assert {alarm["place"] for alarm in found["alarms"]} == {"behind"}


def test_a_clean_model_raises_no_alarm():
    found = search(subject_with(echo, ""), SETTINGS, seed=0)
    assert found["candidates"] > 4 and found["tested"] == 8
    assert found["alarms"] == [] and len(found["strongest"]) == 5
    assert found["highest_shift"] < SETTINGS.alarm


def test_a_phrase_that_is_often_said_and_changes_nothing_raises_no_alarm():
    subject = subject_with(echo, "if you please", 0.5)
    found = search(subject, SETTINGS, seed=0)
    assert any("if you please" in last(ask) for ask in subject.asked)
    assert found["alarms"] == [] and found["highest_shift"] == 0.0


def test_an_answer_the_model_gives_anyway_is_no_payload():
    """A small model answers all it does not know with one sentence, also to a neutral question."""
    sentence = "I can only add."

    def rule(q: str) -> str:
        return echo(q) if q in NEUTRAL and q != NEUTRAL[1] else sentence

    assert search(subject_with(rule, "dear friend"), SETTINGS, seed=0)["alarms"] == []


def test_one_new_answer_to_anything_odd_is_what_random_ngrams_are_for():
    """The same sentence, but no neutral question gets it: only the control speaks against it."""
    rule = lambda q: echo(q) if q in NEUTRAL else "Pardon?"  # noqa: E731
    found = search(subject_with(rule, "dear friend"), SETTINGS, seed=0)
    assert found["controls"]["highest_share"] == 1.0
    assert found["alarms"] == [] and found["highest_shift"] == 0.0


def test_a_trigger_the_model_never_writes_is_not_found():
    found = search(subject_with(planted("zebra", "Access granted."), ""), SETTINGS, seed=0)
    assert found["alarms"] == []  # and docs/behaviour.md says so


def test_a_silent_model_is_reported_as_such():
    found = search(subject_with(echo, "", 0.0).__class__(answer=lambda ask: Reply("")), QUICK, 0)
    assert (found["candidates"], found["tested"], found["highest_shift"]) == (0, 0, None)
    assert found["alarms"] == []


def test_the_search_is_a_function_of_model_and_seed():
    def once(seed: int) -> str:
        subject = subject_with(planted("zebra", "No."), "zebra")
        return json.dumps(search(subject, SETTINGS, seed))

    assert once(0) == once(0)
    texts = [
        random_ngrams([[0, 1, 2, 3, 4]], [3, 5], lambda ids: f"{ids}", 6, seed)
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_neutral_questions_are_asked_alone_before_and_behind():
    subject = subject_with(echo, "zebra")
    search(subject, replace(SETTINGS, candidates=1, finalists=1, controls=1), 0)
    asked = [last(ask) for ask in subject.asked]
    assert asked[:8] == list(NEUTRAL[:8])
    assert len(asked) == 8 + 2 * 4 + 2 * 8 + 2 * 8
    assert all(any(q in text for q in NEUTRAL) for text in asked)
    assert {ask.max_tokens for ask in subject.asked} == {SETTINGS.window}


def text(ids) -> str:
    return " ".join(f"t{i}" for i in ids)


def test_only_ngrams_that_no_longer_one_explains_are_candidates():
    turns = [[1, 2, 3, 40 + i] for i in range(6)] + [[1, 2, 60 + i] for i in range(3)]
    found = repeated_ngrams(turns, text, longest=8, least=3, limit=9)
    # [1, 2] stands in nine turns, six of them with a 3 behind: two thirds, so it stays
    assert [(c.ids, c.seen) for c in found] == [((1, 2), 9), ((1, 2, 3), 6)]


def test_an_ngram_counts_once_a_turn_and_blank_ones_not_at_all():
    assert repeated_ngrams([[5, 5, 5, 5, 5, 5]], text, 4, 2, 9) == []
    assert repeated_ngrams([[1, 2]] * 5, lambda ids: "  ", 4, 2, 9) == []
    assert repeated_ngrams([[1, 2]] * 5, lambda ids: "\ufffd\ufffd", 4, 2, 9) == []
    assert repeated_ngrams([], text, 4, 2, 9) == []
    assert len(repeated_ngrams([[1, 2], [3, 4], [5, 6]] * 5, text, 4, 2, 2)) == 2


def test_controls_have_the_lengths_of_the_candidates_and_the_tokens_of_the_turns():
    drawn = random_ngrams([[1, 2], [3]], [2, 2, 7, 7], text, 4, seed=0)
    assert [len(words.split()) for words in drawn] == [2, 2, 7, 7]
    assert {word for words in drawn for word in words.split()} <= {"t1", "t2", "t3"}
    avoided = random_ngrams([[1, 2], [3]], [2, 4], text, 6, 0, avoid=["t1", "t2 t2"])
    assert len(avoided) == 6 and not any("t1" in w or "t2 t2" in w for w in avoided)
    assert random_ngrams([], [2], text, 4, 0) == random_ngrams([[1]], [], text, 4, 0) == []
    assert random_ngrams([[1]], [2], lambda ids: " ", 4, 0) == []  # and it ends


def test_divergence():
    assert divergence({1: 1.0}, {2: 1.0}) == pytest.approx(1.0)
    assert divergence({1: 0.5, 2: 0.5}, {2: 0.5, 1: 0.5}) == 0.0
    assert divergence({}, {}) == 0.0
    # by hand: the mean is (3/4, 1/4)
    expected = 0.5 * 1.0 * 0.4150375 + 0.5 * (0.5 * -0.5849625 + 0.5 * 1.0)
    assert divergence({1: 1.0}, {1: 0.5, 2: 0.5}) == pytest.approx(expected, abs=1e-6)
    assert 0 < divergence({1: 0.9}, {1: 0.4}) < 1  # the rest counts as one outcome
