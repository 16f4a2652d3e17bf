"""Events of a stream are handed over several at a time, none late and none lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from ingle.engine.request import FinishReason, Request, SamplingParams, TokenEvent, TokenOut
from ingle.prompt.parser import reply_parser
from ingle.server.reply import Reply
from ingle.server.service import EngineService, ServedModel


class Woken(EngineService):
    """A service whose engine thread is the test, which counts how often it wakes the loop."""

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.state = "ok"
        self.wakes = 0

    def _call(self, function, *arguments) -> None:
        self.wakes += 1
        super()._call(function, *arguments)


def event(name: str, number: int, reason: FinishReason | None = None) -> TokenEvent:
    return TokenEvent(name, (TokenOut(number, str(number)),), reason, 1, 0, number + 1)


def run(tokenizer, scripted, pace: float, names: Sequence[str] = "ab") -> tuple[list, int]:
    """30 steps of 4 ms, then the end: each delivery to each reader as (seconds, token ids).

    The readers "v" and "w" want the whole; "v" ends ten steps before the others.
    """

    async def read(service: EngineService, name: str, heard: list) -> None:
        stream = service.submit(Request(name, [1, 2, 3], SamplingParams()), whole=name in "vw")
        async for events in stream.events():
            now = asyncio.get_running_loop().time()
            heard.append((name, now, [token.id for e in events for token in e.tokens]))

    async def main() -> tuple[list, int]:
        service = Woken(scripted(tokenizer), tokenizer, ServedModel("m", "fp", 1), pace)
        await service.start()
        heard: list = []
        tasks = [asyncio.create_task(read(service, name, heard)) for name in names]
        await asyncio.sleep(0)
        for step in range(31):
            live = [name for name in names if name != "v" or step <= 20]
            ends = [step == (20 if name == "v" else 30) for name in live]
            service._send(
                [event(n, step, "stop" if end else None) for n, end in zip(live, ends, strict=True)]
            )
            await asyncio.sleep(0.004)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert service.open_requests == 0
        return heard, service.wakes

    return asyncio.run(main())


@pytest.mark.parametrize("pace", [0.0, 0.02, 0.05, 10.0])
def test_every_token_comes_once_and_in_order(tokenizer, scripted, pace: float) -> None:
    heard, _ = run(tokenizer, scripted, pace, "avwb")
    for name in "avwb":
        ids = [id_ for who, _, some in heard if who == name for id_ in some]
        assert ids == list(range(21 if name == "v" else 31))
    assert [who for who, *_ in heard if who in "vw"] == ["v", "w"]
    last_of_a = max(when for who, when, _ in heard if who == "a")
    assert next(when for who, when, _ in heard if who == "v") < last_of_a


def test_pace_spares_the_loop_and_delays_neither_first_nor_last(tokenizer, scripted) -> None:
    each, woken_each = run(tokenizer, scripted, 0.0)
    paced, woken_paced = run(tokenizer, scripted, 0.03)
    assert woken_each == 31
    assert woken_paced < 16 and len(paced) < len(each) / 2
    # a pace no test waits for: only the beginning and the end are delivered at once
    slow, woken = run(tokenizer, scripted, 10.0, "a")
    assert slow[0][2] == [0] and slow[-1][2][-1] == 30
    assert woken == 4  # the first token, the one after a long silence, a plan not due, the end
    assert len(slow) == 3


def test_deliveries_that_cost_much_come_less_often(tokenizer, scripted, monkeypatch) -> None:
    def deliveries(cost: float) -> int:
        """Deliveries in 0.3 s or more, where the loop spends `cost` seconds on each."""
        spent = itertools.count(0.0, cost)
        monkeypatch.setattr("ingle.server.service.thread_time", lambda: next(spent))
        heard, _ = run(tokenizer, scripted, 0.005, "a")
        return len(heard)

    assert deliveries(0.0) > 2 * deliveries(0.02)
    assert abs(deliveries(0.02) - deliveries(2.0)) <= 2  # 100 ms are the longest pace


def test_what_is_held_when_the_engine_pauses_is_not_kept_back(tokenizer, scripted) -> None:
    async def main() -> float:
        service = Woken(scripted(tokenizer), tokenizer, ServedModel("m", "fp", 1), 0.02)
        await service.start()
        stream = service.submit(Request("a", [1], SamplingParams()))
        loop, batches = asyncio.get_running_loop(), stream.events()
        service._send([event("a", 0)])
        assert [t.id for e in await anext(batches) for t in e.tokens] == [0]
        service._send([event("a", 1)])  # and then no step for long
        service._send([event("a", 2)])
        began, ids = loop.time(), []
        while len(ids) < 2:
            got = await asyncio.wait_for(anext(batches), 5)
            ids += [t.id for e in got for t in e.tokens]
        assert ids == [1, 2]
        await batches.aclose()
        return loop.time() - began

    assert asyncio.run(main()) < 1.0


def test_a_reply_is_the_same_however_its_events_are_joined(tokenizer) -> None:
    text = "7+5=12 2;\n\n4+8+1=13 é 😀\n"
    ids = [*tokenizer.encode(text), tokenizer.special("</think>"), *tokenizer.encode("\n\n132 é\n")]
    prompt = [tokenizer.special("<think>")]
    outs = [TokenOut(id_, tokenizer.decode([id_])) for id_ in ids]
    outs = [o if "�" not in o.text else TokenOut(o.id, "") for o in outs]  # half a character

    def reply(size: int, keep: bool) -> Reply:
        made = Reply(reply_parser("deepseek_r1", tokenizer, prompt), keep)
        groups = [outs[i : i + size] for i in range(0, len(outs), size)]
        for number, group in enumerate(groups):
            reason: FinishReason | None = "stop" if number == len(groups) - 1 else None
            made.push(TokenEvent("a", tuple(group), reason, 1, 0, 1))
        return made

    expected = reply(1, True)
    assert expected.reasoning_tokens and expected.text("content")
    for size in (1, 2, 3, 5, 8, 100):
        for keep in (False, True):
            made = reply(size, keep)
            for kind in ("reasoning", "content"):
                assert made.text(kind) == expected.text(kind)
            assert made.reasoning_tokens == expected.reasoning_tokens
            kept = [t.id for kind in ("reasoning", "content") for t in made.tokens(kind)]
            assert kept == (ids if keep else [])
