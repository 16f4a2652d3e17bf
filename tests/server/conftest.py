"""A scripted engine behind the real server, so that these tests need neither weights nor torch."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import httpx
import pytest

from ingle.engine.explain import PrefixReport
from ingle.engine.request import Request, SamplingParams, TokenEvent, TokenOut
from ingle.engine.stats import EngineStats
from ingle.errors import ContextLengthError, QueueFullError
from ingle.prompt.detokenize import Detokenizer
from ingle.prompt.encoder import DSML, Encoder
from ingle.prompt.tokenizer import Tokenizer
from ingle.server.access_log import AccessLog
from ingle.server.app import create_app
from ingle.server.guard import Access
from ingle.server.lifecycle import Server, configure
from ingle.server.service import EngineService, ServedModel
from ingle.server.wire import Wire
from ingle.training.tokenizer import build_tokenizer

CONTEXT = 512


@dataclass
class Running:
    request: Request
    ids: list[int]
    detokenizer: Detokenizer
    done: int = 0


@dataclass
class ScriptedEngine:
    """Writes a fixed reply, one token of each request a step; keeps what it was asked."""

    tokenizer: Tokenizer
    reasoning: str | None = "7+5=12 2; 4+8+1=13 32\n"  # None: the prompt ends no thought
    content: str = "132 é"
    step_seconds: float = 0.0
    max_open: int = 10_000
    fails: bool = False
    rejects: bool = False  # ends each request with an error, as on a non-finite logit
    context: int = CONTEXT
    seen: list[Request] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    open: dict[str, Running] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    steps: int = 0
    generated: int = 0

    def reply_ids(self) -> list[int]:
        t = self.tokenizer
        thought = []
        if self.reasoning is not None:
            thought = [*t.encode(self.reasoning), t.special("</think>"), *t.encode("\n\n")]
        return [*thought, *self._content_ids(), t.eos_id]

    def _content_ids(self) -> list[int]:
        """The content, with the token of tool calls where the vocabulary has it."""
        mark, ids = self.tokenizer.find_special(DSML), []
        for index, text in enumerate(self.content.split(DSML) if mark else [self.content]):
            ids += [mark] * (index > 0) + self.tokenizer.encode(text)
        return ids

    def check_length(self, prompt_tokens: int, max_tokens: int | None) -> None:
        if prompt_tokens + (max_tokens or 1) > self.context:
            raise ContextLengthError(
                f"{prompt_tokens} and {max_tokens} exceed {self.context}.", "messages"
            )

    def explain(self, prompt: list[int], salt: bytes = b"") -> PrefixReport:
        return PrefixReport(len(prompt), 0, min(3, len(prompt)), "diverged")

    def submit(self, request: Request) -> None:
        with self.lock:
            if len(self.open) >= self.max_open:
                raise QueueFullError("Too many requests are waiting.")
            self.seen.append(request)
            self.open[request.id] = Running(request, self.reply_ids(), Detokenizer(self.tokenizer))

    def cancel(self, request_id: str) -> None:
        with self.lock:
            self.cancelled.append(request_id)
            self.open.pop(request_id, None)

    @property
    def vocab(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def eos_ids(self) -> frozenset[int]:
        return frozenset({self.tokenizer.eos_id})

    @property
    def has_work(self) -> bool:
        return bool(self.open)

    def stats(self) -> EngineStats:
        prompts = [len(request.prompt) for request in self.seen]
        return EngineStats(
            running=len(self.open),
            waiting=0,
            pages_total=10,
            pages_used=2,
            pages_cached=3,
            bytes_per_token=1,
            mtp_bytes_per_token=0,
            steps=self.steps,
            prompt_tokens=sum(prompts),
            cached_tokens=3 * len(prompts),
            generated_tokens=self.generated,
            preemptions=1,
            drafted=(4, 2),
            accepted=(3, 1),
            step_seconds=self.step_seconds,
        )

    def step(self) -> list[TokenEvent]:
        time.sleep(self.step_seconds)
        self.steps += 1
        if self.fails:
            raise RuntimeError("secret /root/path 0x7f00deadbeef")
        with self.lock:
            return [self._advance(running) for running in list(self.open.values())]

    def _advance(self, running: Running) -> TokenEvent:
        if self.rejects:
            del self.open[running.request.id]
            length = len(running.request.prompt)
            return TokenEvent(
                running.request.id, (), "error", length, 0, 0, error="No finite number."
            )
        params, token = running.request.params, running.ids[running.done]
        running.done += 1
        self.generated += 1
        ends = running.done == len(running.ids)
        full = params.max_tokens is not None and running.done >= params.max_tokens
        reason = "stop" if ends else "length" if full else None
        if reason is not None:
            del self.open[running.request.id]
        wanted = params.logprobs
        top = () if not wanted else ((token, -0.5), (token + 1, float("-inf")))
        logprob = None if wanted is None else -0.5
        return TokenEvent(
            request_id=running.request.id,
            tokens=(TokenOut(token, running.detokenizer.push(token), logprob, top),),
            finish_reason=reason,
            prompt_tokens=len(running.request.prompt),
            cached_tokens=3,
            completion_tokens=running.done,
            queue_seconds=0.002,
            stop_reason=token if ends else None,
        )


@dataclass
class Live:
    """A server on a real socket."""

    url: str
    engine: ScriptedEngine
    service: EngineService
    client: httpx.Client
    wire: Wire

    def chat(self, **fields: object) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "What is 47 + 85?"}], **fields}
        return self.client.post("/v1/chat/completions", json=body)


@contextmanager
def serve(
    engine: ScriptedEngine,
    access: Access | None = None,
    encoder: Encoder | None = None,
    wire: Wire | None = None,
    log: AccessLog | None = None,
) -> Iterator[Live]:
    model = ServedModel("test-model", "fp_test", 1, SamplingParams(temperature=0.6), ("Hi?",))
    model = replace(model, encoder=encoder or model.encoder)
    service = EngineService(engine, engine.tokenizer, model)
    wire = wire or Wire()
    app = create_app(service, access, drain_seconds=1.0, wire=wire, log=log)
    server = Server(configure(app, wire), service, drain_seconds=1.0)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not server.started:
                time.sleep(0.005)
            yield Live(url, engine, service, client, wire)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def wait_until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def live(tokenizer: Tokenizer) -> Iterator[Live]:
    with serve(ScriptedEngine(tokenizer)) as running:
        yield running


@pytest.fixture(scope="session")
def start():
    """`serve` for tests that need a server of their own."""
    return serve


@pytest.fixture
def eventually():
    return wait_until


@pytest.fixture(scope="session")
def scripted():
    return ScriptedEngine
