"""What the chat dialects come down to: one conversation to be answered, and its preparation.

A dialect translates its body into a `Turn`; `prepare` makes the prompt and the grammar of it. From
there on no dialect is left until the reply is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ingle.engine.request import SamplingParams
from ingle.engine.text import answer_window
from ingle.errors import InvalidRequestError
from ingle.prompt.deepseek_r1 import has_thinking
from ingle.prompt.encoder import END_THINK, THINK, ends_in_reasoning, may_open_thought
from ingle.prompt.parser import ReplyParser, reply_parser
from ingle.prompt.parser_plain import PlainParser
from ingle.server.output_format import OutputFormat
from ingle.server.tool_choice import ToolChoice, is_strict

if TYPE_CHECKING:
    from ingle.engine.grammar import Grammar
    from ingle.server.service import EngineService


@dataclass(frozen=True)
class Turn:
    """A checked conversation, OpenAI-shaped as `ingle.prompt.messages` reads it.

    tools: those the prompt describes. effort: how hard to think, where the generation can be told.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_calls: bool = True
    thinking: bool = True
    effort: str | None = None
    output: OutputFormat | None = None


@dataclass(frozen=True)
class Prepared:
    """A prompt ready for the engine.

    thinking: whether the reply may hold a thought. calls: whether tools are offered. plain: it is
    text, not a turn with fields. starts: where in the prompt each message begins, as
    `Encoder.encode_marked` tells.
    """

    prompt: list[int]
    params: SamplingParams
    thinking: bool = False
    calls: bool = False
    plain: bool = False
    starts: list[tuple[int, int]] = field(default_factory=list)

    def parser(self, service: EngineService) -> ReplyParser:
        """What sorts one reply to this prompt into its fields."""
        if self.plain:
            return PlainParser()
        name = service.model.encoder.name
        return reply_parser(name, service.tokenizer, self.prompt, self.calls)


def prepare(turn: Turn, params: SamplingParams, service: EngineService) -> Prepared:
    """Encode a turn and compile its grammar; may take a while, so call it beside the event loop.

    Raises InvalidRequestError for messages, tools or grammars that the model's format or the
    grammar engine cannot express, ContextLengthError for a prompt that does not fit.
    """
    encoder, tokenizer = service.model.encoder, service.tokenizer
    if turn.output is not None and turn.messages[-1].get("prefix"):
        raise InvalidRequestError(  # the format binds the answer, of which a part is given
            f"response_format {turn.output.kind} should not be used with prefix", turn.output.param
        )
    # of an assistant's messages the format may drop a part
    told = [said.get("content") for said in turn.messages if said["role"] != "assistant"]
    service.check_text(sum(len(text) for text in told if isinstance(text, str)), "messages")
    prompt, starts = encoder.encode_marked(
        turn.messages,
        tokenizer,
        tools=turn.tools or None,
        thinking=turn.thinking,
        effort=turn.effort,
        response_schema=turn.output.schema if turn.output else None,
    )
    service.check_length(len(prompt), params.max_tokens)
    grammar = _grammar(turn, prompt, service)
    window = answer_window(prompt, tokenizer, calls=bool(turn.tools))
    params = replace(params, grammar=grammar, stop_window=window)
    thinking = turn.thinking and has_thinking(tokenizer)
    return Prepared(prompt, params, thinking, calls=bool(turn.tools), starts=starts)


def _grammar(turn: Turn, prompt: list[int], service: EngineService) -> Grammar | None:
    """The mask of an answer; it begins behind the thought that the prompt leaves open or that the
    model may open itself."""
    tokenizer = service.tokenizer
    start_after = opened_by = None
    if ends_in_reasoning(prompt, tokenizer):
        start_after = tokenizer.find_special(END_THINK)
    elif turn.thinking and may_open_thought(prompt, tokenizer):
        start_after, opened_by = map(tokenizer.find_special, (END_THINK, THINK))
    if turn.output is not None:
        output = turn.output
        return service.grammars.compile(
            output.kind, output.bound, start_after, output.param, opened_by
        )
    choice = turn.tool_choice
    bound = choice.forced or not turn.parallel_calls or any(map(is_strict, turn.tools))
    if turn.tools and bound:
        from ingle.prompt.call_grammar import call_grammar

        text = call_grammar(
            service.model.encoder.name,
            tokenizer,
            turn.tools,
            required=choice.forced,
            named=choice.name,
            parallel=turn.parallel_calls,
        )
        return service.grammars.compile("calls", text, start_after, "tools", opened_by)
    return None
