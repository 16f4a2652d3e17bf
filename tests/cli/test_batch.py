"""ingle batch: answers are those of the API, a second run goes on, a bad file costs nothing."""

from __future__ import annotations

import json

import pytest

from ingle.cli.main import main


def request(index: int, **fields: object) -> dict[str, object]:
    body = {
        "messages": [{"role": "user", "content": f"{index}+1="}],
        "max_tokens": 6,
        "seed": index,
        **fields,
    }
    return {"custom_id": f"r{index}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def write(path, lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(path) -> dict[str, dict]:
    return {line["custom_id"]: line for line in map(json.loads, path.read_text().splitlines())}


def run(folder, source, target, *options: str) -> int:
    return main(["batch", str(source), str(target), "--model", str(folder), *options])


def test_every_request_is_answered_once_and_refusals_say_why(model_folder, tmp_path, capsys):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [request(index) for index in range(40)]
    lines[7]["body"]["temperature"] = 9
    lines[8] |= {"url": "/v1/completions", "body": {"prompt": "1+1=", "max_tokens": 3}}
    write(source, lines)
    assert run(model_folder, source, target, "--json") == 1  # one was refused
    counts = json.loads(capsys.readouterr().out)
    assert counts == {"answered": 39, "refused": 1, "kept": 0}
    answers = read(target)
    assert set(answers) == {f"r{index}" for index in range(40)}
    refused = answers["r7"]["response"]
    assert refused["status_code"] == 400
    assert refused["body"]["error"]["param"] == "temperature"
    assert answers["r8"]["response"]["body"]["object"] == "text_completion"
    whole = answers["r3"]["response"]["body"]
    assert whole["object"] == "chat.completion"
    assert whole["usage"]["completion_tokens"] == 6


def test_an_interrupted_run_goes_on_where_it_stopped(model_folder, tmp_path, capsys):
    source, target, once = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "once.jsonl"
    write(source, [request(index) for index in range(12)])
    assert run(model_folder, source, once) == 0
    kept = once.read_bytes().splitlines(keepends=True)[:5]
    target.write_bytes(b"".join(kept) + b'{"id": "batch_req_1", "custom_id": "r9", "resp')
    assert run(model_folder, source, target) == 0
    assert "7 answered, 5 were there already" in capsys.readouterr().err
    assert target.read_bytes().startswith(b"".join(kept))

    def texts(path):
        return {name: line["response"]["body"]["choices"] for name, line in read(path).items()}

    assert texts(target) == texts(once)  # seeded: the same answers in any batch
    assert run(model_folder, source, target) == 0
    assert "12 were there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "Line 2"),
        ('{"custom_id": "x"}', "Line 2"),
        (json.dumps(request(0)), "Line 2: its custom_id was used before"),
        (json.dumps(request(1, stream=True)), "does not stream"),
        (json.dumps(request(1) | {"url": "/v1/files"}), "url one of"),
        (json.dumps(request(1) | {"method": "GET"}), "method must be POST"),
        (json.dumps(request(1) | {"custom_id": 5}), "Line 2"),
    ],
)
def test_a_bad_line_is_named_before_anything_runs(model_folder, tmp_path, capsys, line, says):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(request(0)) + "\n" + line + "\n")
    assert run(model_folder, source, target) == 1
    assert says in capsys.readouterr().err
    assert not target.exists()


def test_other_files_are_left_alone(model_folder, tmp_path, capsys):
    source, target = tmp_path / "in.jsonl", tmp_path / "notes.txt"
    write(source, [request(0)])
    target.write_text("my notes\n")
    assert run(model_folder, source, target) == 1
    assert target.read_text() == "my notes\n"
    assert run(model_folder, tmp_path / "none.jsonl", target) == 1
    assert "cannot be read" in capsys.readouterr().err
