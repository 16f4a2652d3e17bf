"""The command itself: fast help, exit codes, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from ingle.cli import main as cli
from ingle.errors import ConfigError


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_names_every_verb_and_is_fast():
    before = getrusage(RUSAGE_CHILDREN)
    result = python("-m", "ingle", "--help")
    after = getrusage(RUSAGE_CHILDREN)
    # processor time: the wall clock of a loaded machine says nothing about the command
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert result.returncode == 0
    assert all(f"\n  {verb}" in result.stdout for verb in cli.VERBS)
    assert seconds < 0.2


@pytest.mark.parametrize(
    "code",
    [
        "import ingle",
        "import ingle.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: pass",
        "import ingle.cli.main as m\ntry: m.main(['serve', '--help'])\nexcept SystemExit: pass",
        "import ingle.cli.main as m\ntry: m.main(['chat', '--help'])\nexcept SystemExit: pass",
        "import ingle.cli.main as m\ntry: m.main(['generate', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_help_and_import_load_nothing_heavy(code):
    check = "\nimport sys\nprint([m for m in ('torch', 'numpy', 'starlette') if m in sys.modules])"
    assert python("-c", code + check).stdout.endswith("[]\n")


def test_wrong_usage_is_2(capsys):
    assert cli.main([]) == 2
    assert cli.main(["dance"]) == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(["generate", "--no-such-option"])
    assert stop.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_version():
    assert python("-m", "ingle", "--version").stdout.startswith("ingle 0.")


def test_user_errors_are_one_line_and_1(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path / "nowhere"), "-p", "hi"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ingle: No folder") and err.count("\n") == 1


def test_json_errors_are_json(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path / "nowhere"), "-p", "hi", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "model_not_found"


def test_interrupt_and_closed_pipe_end_quietly(monkeypatch, capsys):
    class Verb:
        error: type[BaseException] = KeyboardInterrupt

        @staticmethod
        def add_arguments(parser):
            pass

        @classmethod
        def run(cls, args):
            raise cls.error

    monkeypatch.setattr(cli, "import_module", lambda name: Verb)
    assert cli.main(["ls"]) == 1
    Verb.error = ConfigError
    assert cli.main(["ls"]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_closed_pipe(model_folder):
    command = f"{sys.executable} -m ingle generate {model_folder} -p hi --max-tokens 50 | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in result.stderr and "Broken" not in result.stderr
