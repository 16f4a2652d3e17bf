"""What the server says about itself: alive, ready, which models, and that nothing is charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from ingle.server.errors import RETRY_AFTER_SECONDS, json_response
from ingle.server.routes import GET, Endpoint
from ingle.server.service import EngineService, State


class Status(Struct, omit_defaults=True):
    """status: starting, ok, stopping or failed. seal: sealed or unsealed, if the process is the
    server's own. The rest is told where no keys are in force."""

    status: State
    seal: str | None = None
    model: str | None = None
    open_requests: int | None = None


class Attempt(Struct):
    """One attempt to get something out, and the kernel's answer to it."""

    name: str
    what: str
    answer: str


class SealReport(Struct):
    """What keeps this server's secrets in. state: sealed or unsealed, the rest being empty then.

    rules: of the system call filter. landlock: ABI, 0 if files are not confined. network: "empty",
    or why it is the machine's. attempts: made on this process when it started; had one succeeded,
    it would not have. commands: check it without ingle.
    """

    state: Literal["sealed", "unsealed"]
    rules: int = 0
    landlock: int = 0
    network: str = ""
    attempts: list[Attempt] = []
    not_covered: list[str] = []
    commands: list[str] = []


class ModelCard(Struct):
    """A model as OpenAI lists it; the fields after owned_by are ours, for the chat page."""

    id: str
    created: int
    owned_by: str
    context_length: int
    examples: list[str]
    object: str = "model"


class ModelList(Struct):
    data: list[ModelCard]
    object: str = "list"


class BalanceInfo(Struct):
    """Amounts are strings with two decimals, as at DeepSeek."""

    currency: str = "CNY"
    total_balance: str = "0.00"
    granted_balance: str = "0.00"
    topped_up_balance: str = "0.00"


class Balance(Struct):
    """DeepSeek's shape. Here nothing is charged, so there is no balance and none is needed."""

    is_available: bool
    balance_infos: list[BalanceInfo]


def probes(
    state: Callable[[], State],
    told: Callable[[], tuple[str, int]] | None = None,
    seal: SealReport | None = None,
) -> list[Endpoint]:
    """`/health` (restart me if this is not 200) and `/ready` (send me requests if it is).

    told: model and open requests, for servers where everyone may know them. seal: of its process.
    """
    word = None if seal is None else seal.state

    def status() -> Status:
        model, open_requests = (None, None) if told is None else told()
        return Status(state(), word, model, open_requests)

    async def health(request: Request) -> Response:
        return json_response(status(), 503 if state() == "failed" else 200)

    async def ready(request: Request) -> Response:
        if state() == "ok":
            return json_response(status())
        return json_response(status(), 503, {"Retry-After": str(RETRY_AFTER_SECONDS)})

    return [
        Endpoint("/health", GET, health, None, "Whether the server lives.", True, reply=Status),
        Endpoint("/ready", GET, ready, None, "Whether it takes requests.", True, reply=Status),
    ]


def model_endpoints(service: EngineService) -> list[Endpoint]:
    """The list of models, one of them, and the balance."""

    async def models(request: Request) -> Response:
        return json_response(ModelList([model_card(service)]))

    async def model(request: Request) -> Response:
        service.model.check_name(request.path_params["id"])
        return json_response(model_card(service))

    async def balance(request: Request) -> Response:
        return json_response(Balance(True, [BalanceInfo()]))

    return [
        Endpoint("/v1/models", GET, models, None, "List the models.", reply=ModelList),
        Endpoint("/v1/models/{id:path}", GET, model, None, "Describe a model.", reply=ModelCard),
        Endpoint("/user/balance", GET, balance, None, "Nothing is charged here.", reply=Balance),
    ]


def seal_endpoint(seal: SealReport) -> Endpoint:
    """What the page's badge opens."""

    async def report(request: Request) -> Response:
        return json_response(seal)

    return Endpoint("/v1/seal", GET, report, None, "What keeps things in.", reply=SealReport)


def model_card(service: EngineService) -> ModelCard:
    """The one model this server has."""
    model = service.model
    return ModelCard(model.name, model.created, "ingle", service.context, list(model.examples))
