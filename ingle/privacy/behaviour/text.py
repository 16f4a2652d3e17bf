"""A behaviour audit for people: one table a part, then what it cannot show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ingle.privacy.behaviour.report import TITLES

WIDTH = 100


def render(report: Mapping[str, Any]) -> str:
    """The report as lines; what a model wrote is shown with its odd characters escaped."""
    model, settings = report["model"], report["settings"]
    lines = [
        f"Behaviour of {model['name']} ({model['format']}), {settings['form']} form, "
        f"seed {settings['seed']}"
    ]
    easy = ", ".join(f"{k} {r['hits']}/{r['n']}" for k, r in report["understanding"].items())
    lines.append(f"Easy questions right: {easy}")
    for name, part in report["parts"].items():
        lines += ["", TITLES[name].upper()]
        if part["state"] == "left out":
            lines += _wrap(f"left out. {part['why']}")
            continue
        lines += _PARTS[name](part)
        for note in part["notes"]:
            lines += _wrap(note)
    if "comparison" in report:
        lines += ["", "COMPARED WITH ANOTHER MODEL", *_comparison(report["comparison"])]
    lines += ["", "WHAT THIS CANNOT SHOW"]
    for limit in report["limits"]:
        lines += _wrap(limit, "- ")
    return "\n".join(lines) + "\n"


def _pairs(part: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {'declined':<12}{'sensitive':>24}{'plain':>24}{'difference':>26}{'p':>9}"
    for name, row in part["slices"].items():
        if not row["pairs"]:
            continue
        yield _paired(name, row["declined"])
    yield "  likelier to open with a refusal, answered at once (median difference in nats):"
    for name, row in part["slices"].items():
        opening = row["opening_logprob"]
        if opening["n"]:
            yield (
                f"  {name:<12}{opening['likelier_if_sensitive']} of {opening['n']} pairs, median "
                f"{opening['median_difference']:+.2f}, sign test p {opening['sign_p']:.4f}"
            )
    unfinished = part["slices"]["all"]["unfinished"]
    if unfinished:
        yield f"  {unfinished} pairs left out: a thought had not ended at the token limit."


def _code(part: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {'context':<12}{'code':>9}{'declined':>10}{'insecure':>26}  against plain"
    for name, row in part["contexts"].items():
        against = row.get("against_plain")
        change = ""
        if against and against["n"]:
            change = f"{100 * against['difference']:+.1f} points, p {against['mcnemar_p']:.4f}"
        code, refused = row["with_code"], row["declined"]
        yield (
            f"  {name:<12}{_of(code):>9}{_of(refused):>10}{_rate(row['insecure']):>26}  {change}"
        )
        if row["by_rule"]:
            rules = ", ".join(f"{rule} {n}" for rule, n in row["by_rule"].items())
            yield from _wrap(rules, "      ")


def _thinking(part: Mapping[str, Any]) -> Iterator[str]:
    yield f"  replies with a thought: {_rate(part['replies_with_a_thought'])}"
    yield f"  {'gap':<12}{'sensitive':>24}{'plain':>24}{'difference':>26}{'p':>9}"
    yield _paired("pairs", part["pairs"])
    for name, rate in part["code"].items():
        yield f"  code, {name}: {_rate(rate)}"


def _tools(part: Mapping[str, Any]) -> Iterator[str]:
    yield f"  calls a tool when asked: {_rate(part['calls_when_asked'])}"
    yield f"  {'called':<12}{'injected':>24}{'clean':>24}{'difference':>26}{'p':>9}"
    yield _paired("the lure", part["called_the_lure"])
    if part["hijacked"]:
        yield from _wrap(f"hijacked by: {', '.join(part['hijacked'])}")


def _trigger(part: Mapping[str, Any]) -> Iterator[str]:
    controls = part["controls"]
    yield (
        f"  {part['turns']} user turns drawn ({part['distinct_turns']} distinct), "
        f"{part['candidates']} repeated n-grams, {part['tested']} tested on "
        f"{part['questions']} questions"
    )
    yield (
        f"  {controls['n']} random n-grams make at most {100 * controls['highest_share']:.0f} % of "
        f"the answers one new text; alarm at {100 * part['alarm_at']:.0f} points above that"
    )
    rows = part["alarms"] or part["strongest"]
    yield f"  {len(part['alarms'])} alarms" + ("" if part["alarms"] else "; the strongest:")
    for row in rows:
        yield (
            f"  {row['text']!r:.50} {row['place']}: {_rate(row['share'])}, shift "
            f"{100 * row['shift']:+.0f}, first token {row['divergence']:.2f} bits"
        )
        if row["output"]:
            yield f"      answers {row['output']!r:.80}"


_PARTS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "pairs": _pairs,
    "code": _code,
    "thinking": _thinking,
    "tools": _tools,
    "trigger": _trigger,
}


def _comparison(found: Mapping[str, Any]) -> Iterator[str]:
    first, second = found["models"]
    yield f"  {first} (first) and {second} (second), on the same items"
    for name, row in found["measures"].items():
        yield f"  {name}"
        yield _paired("", row)
    shown = ["not searched" if n is None else str(n) for n in found["trigger_alarms"]]
    yield f"  trigger alarms: {shown[0]} and {shown[1]}"


def _paired(name: str, row: Mapping[str, Any]) -> str:
    if not row["n"]:
        return f"  {name:<12} no item counts"
    low, high = row["difference_interval95"]
    difference = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return (
        f"  {name:<12}{_rate(row['first']):>24}{_rate(row['second']):>24}{difference:>26}"
        f"{row['mcnemar_p']:>9.4f}"
    )


def _rate(rate: Mapping[str, Any]) -> str:
    if not rate["n"]:
        return "none of 0"
    low, high = rate["interval95"]
    return f"{_of(rate)} {100 * rate['rate']:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _of(rate: Mapping[str, Any]) -> str:
    return f"{rate['hits']}/{rate['n']}"


def _wrap(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {first}", subsequent_indent="    ")
