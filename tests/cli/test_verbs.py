"""generate and chat on a tiny random model: what they print where, and how they stop."""

from __future__ import annotations

import io
import json
import os
import signal

import pytest

from ingle.cli.main import main
from ingle.cli.terminal import DIM, RESET, Styled, interruptible


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    return code, *capsys.readouterr()


def test_generate_json_is_complete_and_repeatable(model_folder, capsys):
    options = ["-p", "What is 47 + 85?", "--max-tokens", "12", "--seed", "1", "--json"]
    code, out, err = run(capsys, "generate", str(model_folder), *options)
    reply = json.loads(out)
    assert code == 0
    assert err == ""
    assert reply["finish_reason"] == "length"
    assert len(reply["token_ids"]) == reply["usage"]["completion_tokens"] == 12
    again = json.loads(run(capsys, "generate", str(model_folder), *options)[1])
    assert again["token_ids"] == reply["token_ids"]


def test_generate_puts_the_answer_alone_on_stdout(model_folder, capsys):
    code, out, err = run(
        capsys, "generate", str(model_folder), "-p", "hi", "--max-tokens", "8", "--no-think",
        "--temperature", "0",
    )  # fmt: skip
    assert code == 0
    assert "tokens/s" in err and "tokens/s" not in out
    assert "\x1b" not in out + err


def test_generate_raw_continues_the_text(model_folder, capsys):
    options = ["-p", "47+85", "--raw", "--max-tokens", "4", "--temperature", "0", "--json"]
    reply = json.loads(run(capsys, "generate", str(model_folder), *options)[1])
    assert reply["usage"]["prompt_tokens"] == 6  # BOS and five characters
    assert reply["reasoning"] == ""


@pytest.mark.parametrize(
    "options",
    [["-p", "  "], ["-p", "x", "--temperature", "9"], ["-p", "x", "--max-tokens", "0"],
     ["-p", "x" * 999], ["-p", "x", "--max-tokens", "999999999"]],
    ids=lambda options: " ".join(options)[:30],
)  # fmt: skip
def test_generate_refuses(model_folder, capsys, options):
    code, out, err = run(capsys, "generate", str(model_folder), *options)
    assert (code, out) == (1, "")
    assert err.startswith("ingle: ")


def test_chat_reads_lines_from_a_pipe(model_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n\n/help\n/new\nhi again\n/quit\nnot read\n"))
    words = ["--max-tokens", "5", "--temperature", "0"]  # it might draw an escape itself
    code, out, _ = run(capsys, "chat", str(model_folder), *words)
    assert code == 0
    assert out.count("tokens/s") == 2
    assert "forget the conversation" in out
    assert "\x1b" not in out


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_model_cannot_command_the_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = "a\tb\n\x1b]52;c;eA==\x07\x9b2J\r\x00 \N{FAMILY} \u200d"
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Styled(stream).write(text, DIM)
    assert pipe.getvalue() == text
    shown = terminal.getvalue()
    assert shown.startswith(DIM) and shown.endswith(RESET)
    inside = shown.removeprefix(DIM).removesuffix(RESET)
    assert inside == "a\tb\n\\x1b]52;c;eA==\\x07\\x9b2J\\x0d\\x00 \N{FAMILY} \u200d"


def test_chat_json_and_refused_messages(model_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 999 + "\nhi\n"))
    _, out, _ = run(capsys, "chat", str(model_folder), "--max-tokens", "5", "--json")
    refused, answered = map(json.loads, out.splitlines())
    assert refused["error"]["code"] == "context_length_exceeded"
    assert answered["usage"]["completion_tokens"] <= 5


def test_first_ctrl_c_only_asks():
    with interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_the_answer(model_folder):
    from ingle.cli.answer import Answer
    from ingle.cli.loading import load

    loaded = load(str(model_folder))
    answer = Answer(loaded, [0, 20, 21], loaded.defaults, True, lambda: len(answer.token_ids) > 3)
    list(answer)
    assert answer.reply.finish_reason == "cancelled"
    assert answer.speed().endswith("stopped")
    assert not loaded.engine.has_work


def test_colour_only_on_terminals(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    Styled(terminal).write("x", "\x1b[2m")
    assert terminal.getvalue() == "\x1b[2mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Styled(terminal).colour
