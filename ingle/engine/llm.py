"""The engine for scripts: prompts in, results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ingle.engine.config import EngineConfig
from ingle.engine.defaults import read_generation_config
from ingle.engine.engine import Engine
from ingle.engine.progress import progress
from ingle.engine.request import FinishReason, Request, SamplingParams, TokenEvent, TokenOut
from ingle.engine.storage import Quant, choose_storage
from ingle.engine.text import answer_window
from ingle.errors import ConfigError, IngleError, InvalidRequestError, QueueFullError

if TYPE_CHECKING:
    from torch import Tensor

    from ingle.engine.runner import StepModel
    from ingle.prompt.encoder import Encoder
    from ingle.prompt.parser import ReplyParser
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.weights.paging import MappedWeights

CALIBRATION_TOKENS = 2048  # of a calibration text: more changes the mean squares little
Prompt = str | list[int]
Message = Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """Token counts of one result."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Result:
    """One finished output.

    text: the answer; reasoning: what the model thought before it (`chat` only, else "").
    token_ids: all generated ids, the end-of-sequence token included. logprobs: one entry per id
    where SamplingParams.logprobs asked for them; top_logprobs: the likeliest (id, logprob) of each.
    """

    text: str
    reasoning: str
    token_ids: list[int]
    logprobs: list[float] | None
    top_logprobs: list[tuple[tuple[int, float], ...]] | None
    finish_reason: FinishReason
    usage: Usage


class LLM:
    """A model folder with an engine around it.

    path: a folder in Hugging Face layout, None for the shipped reasoner. quant: how weights are
    kept, see engine/storage.py. keep_quantised: keep them on disk, too, for a quick second start
    (weights/cache.py). expert_bytes: leave experts on disk but for this much of them; chosen by
    itself for a mixture that is larger than the free memory. calibration: text that int4 rounding
    should respect, which takes a second load (models/calibrate.py). adapter: folder of a LoRA
    that is added to the weights (weights/adapter.py). options: fields of EngineConfig. Raises
    ModelNotFoundError, ConfigError, WeightsError or MemoryNeededError.
    """

    folder: Path | None = None  # where the model came from; none for one that was in memory
    mapped: MappedWeights | None = None  # the file of experts that stay on disk, if they do

    def __init__(
        self,
        path: str | Path | None = None,
        quant: Quant = "auto",
        kernels: str = "auto",
        keep_quantised: bool = False,
        expert_bytes: int | None = None,
        calibration: str | None = None,
        adapter: Path | None = None,
        **options: Any,
    ) -> None:
        from ingle.models import load_model, read_config, resolve_model
        from ingle.prompt.tokenizer import Tokenizer
        from ingle.weights.checkpoint import Checkpoint

        folder = resolve_model(path)
        config, tokenizer = read_config(folder), Tokenizer.load(folder)
        if tokenizer.vocab_size > config.vocab_size:
            raise ConfigError(
                f"tokenizer.json has tokens up to {tokenizer.vocab_size - 1}, the model only "
                f"{config.vocab_size} rows for them: the files do not belong together."
            )
        storage = choose_storage(quant, config, Checkpoint(folder).dtype, expert_bytes)
        defaults = read_generation_config(folder)
        options = {"eos_ids": defaults.eos_ids, "cache_dtype": storage.cache} | options
        importance = None
        if calibration is not None and storage.kind == "int4" and storage.experts is None:
            importance = _importance(folder, tokenizer, calibration, adapter)
        with progress(f"loading {folder.name}", in_bytes=True) as show:
            model = load_model(
                folder, storage.dtype, kernels, storage.kind, show, keep_quantised,
                storage.experts, importance, adapter,
            )  # fmt: skip
        self._setup(model, tokenizer, EngineConfig(**options), defaults.params)
        self.folder, self.mapped = folder, model.mapped

    @classmethod
    def of(
        cls, model: StepModel, tokenizer: Tokenizer | None, config: EngineConfig | None = None
    ) -> LLM:
        """An LLM over a model that is in memory already, for example one in training."""
        llm = cls.__new__(cls)
        llm._setup(model, tokenizer, config or EngineConfig(), SamplingParams())
        return llm

    def _setup(
        self,
        model: StepModel,
        tokenizer: Tokenizer | None,
        config: EngineConfig,
        defaults: SamplingParams,
    ) -> None:
        self.model, self.tokenizer, self.default_params = model, tokenizer, defaults
        self.engine = Engine(model, tokenizer, config)
        self._ids = count()

    @cached_property
    def encoder(self) -> Encoder:
        """The chat format of the model's generation; ConfigError for a model that has none."""
        from ingle.prompt.select import ENCODERS, encoder_of

        if self.folder is None:
            return ENCODERS["deepseek_r1"]  # what we train
        return encoder_of(self.folder, self._tokenizer())

    @overload
    def generate(self, prompts: Prompt, params: SamplingParams | None = None) -> list[Result]: ...
    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Result]: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Result]:
        """Continue each prompt; results come in the prompts' order.

        prompts: text (BOS is put before it) or token ids (taken as they are), one or many.
        params: one for all or one each; None takes the model's generation_config.
        Raises InvalidRequestError or ContextLengthError before anything is computed.
        """
        many = [prompts] if isinstance(prompts, str) or _is_ids(prompts) else list(prompts)
        ids = [self._encode(prompt) for prompt in many]  # type: ignore[arg-type]
        outputs = self._run(ids, self._params(params, len(ids)))
        return [_result(out, "".join(t.text for t in out.tokens), "") for out in outputs]

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        thinking: bool = True,
    ) -> list[Result]: ...
    @overload
    def chat(
        self,
        messages: Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        thinking: bool = True,
    ) -> list[Result]: ...
    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        thinking: bool = True,
    ) -> list[Result]:
        """Answer a conversation, or each of many; reasoning and answer come apart.

        messages: mappings with `role` and `content`. thinking=False asks for the answer at once.
        """
        from ingle.prompt.parser import reply_parser

        tokenizer = self._tokenizer()
        one = not messages or isinstance(messages[0], Mapping)
        conversations: Any = [messages] if one else messages
        encode = self.encoder.encode
        ids = [encode(turns, tokenizer, thinking=thinking) for turns in conversations]
        windows = [answer_window(prompt, tokenizer, calls=False) for prompt in ids]
        bounded = [
            replace(one, stop_window=window)
            for one, window in zip(self._params(params, len(ids)), windows, strict=True)
        ]
        outputs = self._run(ids, bounded)
        return [
            _chat_result(out, reply_parser(self.encoder.name, tokenizer, prompt, calls=False))
            for out, prompt in zip(outputs, ids, strict=True)
        ]

    def _run(self, prompts: list[list[int]], params: list[SamplingParams]) -> list[_Output]:
        requests = [
            Request(f"{next(self._ids)}", prompt, p)
            for prompt, p in zip(prompts, params, strict=True)
        ]
        for request in requests:
            self.engine.check(request)
        outputs = {request.id: _Output() for request in requests}
        todo = iter(requests)
        held = next(todo, None)
        try:
            with progress("generating") as show:
                while held is not None or self.engine.has_work:
                    while held is not None and self._offer(held):
                        held = next(todo, None)
                    for event in self.engine.step():
                        outputs[event.request_id].add(event)
                    show(sum(out.last is not None for out in outputs.values()), len(outputs))
        except BaseException:  # also Ctrl-C: leave an engine that can be used again
            for request in requests:
                self.engine.cancel(request.id)
            self.engine.step()
            raise
        return list(outputs.values())

    def _offer(self, request: Request) -> bool:
        try:
            self.engine.submit(request)
        except QueueFullError:
            return False
        return True

    def _encode(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        tokenizer = self._tokenizer()
        return [tokenizer.bos_id, *tokenizer.encode(prompt)]

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InvalidRequestError("Text needs a tokenizer; give token ids.", "prompt")
        return self.tokenizer

    def _params(
        self, params: SamplingParams | Sequence[SamplingParams] | None, number: int
    ) -> list[SamplingParams]:
        if params is None or isinstance(params, SamplingParams):
            return [params or self.default_params] * number
        if len(params) != number:
            raise InvalidRequestError(f"{number} prompts need 1 or {number} params.", "params")
        return list(params)


@dataclass
class _Output:
    """A result in the making."""

    tokens: list[TokenOut] = field(default_factory=list)
    last: TokenEvent | None = None

    def add(self, event: TokenEvent) -> None:
        self.tokens += event.tokens
        if event.finish_reason == "error":
            raise IngleError(event.error or "The model failed on this request.")
        if event.finish_reason is not None:
            self.last = event


def _importance(
    folder: Path, tokenizer: Tokenizer, text: str, adapter: Path | None
) -> dict[str, Tensor]:
    """What a text asks of each matrix's inputs, from the model in int8."""
    import torch

    from ingle.models import load_model
    from ingle.models.calibrate import input_importance

    ids = [tokenizer.bos_id, *tokenizer.encode(text)][:CALIBRATION_TOKENS]
    with progress(f"loading {folder.name} to read the calibration text", in_bytes=True) as show:
        model = load_model(folder, torch.float32, "reference", "int8", show, adapter=adapter)
    ids = ids[: model.config.max_position_embeddings]
    return input_importance(model, torch.tensor([ids]))


def _is_ids(prompts: object) -> bool:
    return isinstance(prompts, Sequence) and bool(prompts) and isinstance(prompts[0], int)


def _result(output: _Output, text: str, reasoning: str) -> Result:
    last = output.last
    assert last is not None and last.finish_reason is not None
    scored = [token for token in output.tokens if token.logprob is not None]
    return Result(
        text=text,
        reasoning=reasoning,
        token_ids=[token.id for token in output.tokens],
        logprobs=[t.logprob for t in scored if t.logprob is not None] if scored else None,
        top_logprobs=[token.top_logprobs for token in scored] if scored else None,
        finish_reason=last.finish_reason,
        usage=Usage(last.prompt_tokens, last.cached_tokens, last.completion_tokens),
    )


def _chat_result(output: _Output, parser: ReplyParser) -> Result:
    deltas = [delta for token in output.tokens for delta in parser.push(token.id, token.text)]
    deltas += parser.finish()
    text, reasoning = (
        "".join(delta.text for delta in deltas if delta.kind == kind)
        for kind in ("content", "reasoning")
    )
    return _result(output, text, reasoning)
