"""The one tool of these tests, as each dialect describes it, and its answer."""

from __future__ import annotations

from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
DESCRIPTION = "The weather of a city."
NAME = "get_weather"
QUESTION = "Weather in Paris and Oslo?"
DEGREES = {"Paris": 18, "Oslo": 9}


def get_weather(city: str) -> str:
    """What the tool answers."""
    return f"{DEGREES[city]} degrees in {city}"


HEARD = f"I hear: {get_weather('Paris')} and {get_weather('Oslo')}"


def openai_tool(**function: Any) -> dict[str, Any]:
    """For Chat Completions; function: further fields of it."""
    described = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
    return {"type": "function", "function": described | function}
