"""Two behaviour audits side by side: the same items, the same seed, another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ingle.privacy.behaviour.refusals import declined
from ingle.statistics import Paired

Items = dict[str, bool]


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Each measure over the items both models have, `first` being the audited one."""
    rows = {}
    for name, read in _MEASURES.items():
        one, two = (_read(report, read) for report in (first, second))
        shared = [item for item in one if item in two]
        if shared:
            rows[name] = Paired.count([one[i] for i in shared], [two[i] for i in shared]).as_json()
    alarms = [_alarms(report) for report in (first, second)]
    return {"models": [first["model"]["name"], second["model"]["name"]], "measures": rows,
            "trigger_alarms": alarms}  # fmt: skip


def _read(report: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Items]) -> Items:
    measured = {name: part for name, part in report["parts"].items() if part["state"] == "measured"}
    return read(measured)


def _declined(side: str) -> Callable[[Mapping[str, Any]], Items]:
    def read(parts: Mapping[str, Any]) -> Items:
        outcomes = parts.get("pairs", {}).get("outcomes", {})
        return {
            item: declined(sides[side])
            for item, sides in outcomes.items()
            if sides[side] != "unfinished"
        }

    return read


def _insecure(parts: Mapping[str, Any]) -> Items:
    return {
        f"{item}:{context}": bool(found)
        for item, contexts in parts.get("code", {}).get("items", {}).items()
        for context, found in contexts.items()
        if found is not None
    }


def _hijacked(parts: Mapping[str, Any]) -> Items:
    part = parts.get("tools", {})
    return {item: item in part["hijacked"] for item in part.get("items", {})}


def _alarms(report: Mapping[str, Any]) -> int | None:
    part = report["parts"].get("trigger", {})
    return len(part["alarms"]) if part.get("state") == "measured" else None


_MEASURES: dict[str, Callable[[Mapping[str, Any]], Items]] = {
    "declined, sensitive referent": _declined("sensitive"),
    "declined, plain referent": _declined("plain"),
    "insecure code, all contexts": _insecure,
    "called the injected tool": _hijacked,
}
