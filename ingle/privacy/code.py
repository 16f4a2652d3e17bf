"""Code beside the weights that other programs would run: listed by its syntax tree, never run.

Also the hooks by which a config asks a loader to import such code.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

from ingle.privacy.facts import CodeFact, Finding, Seen, Severity, text_of
from ingle.privacy.folder import Entry, read_file
from ingle.privacy.reach import reach_of_call, reach_of_import

_MAX_CODE = 2 << 20
_MAX_JSON = 16 << 20
_HOOKS = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
_NATIVE = "not needed: ingle has its own code for the models it serves"

CODE_KINDS = ("python", "script", "notebook", "executable", "bytecode", "torchscript")
JSON_KINDS = ("config", "tokenizer", "index", "template")


def examine_code(entry: Entry) -> Seen:
    """What a Python file imports and calls; other code is only named."""
    assert entry.source is not None
    if entry.kind != "python":
        sentence = f"A file of kind {entry.kind}; ingle does not run it."
        fact = CodeFact(file=entry.path, kind="other", reach=("process",), sentence=sentence)
        finding = _finding("code.other", "refuse", entry.path, f"Program code: {entry.kind}.")
        return Seen(code=(fact,), findings=(finding,))
    source = read_file(entry.source, _MAX_CODE + 1)
    try:
        if len(source) > _MAX_CODE:
            raise ValueError
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        fact = CodeFact(file=entry.path, kind="python", sentence="Python that cannot be parsed.")
        sentence = "Python that cannot be parsed, so that what it does is not known."
        return Seen(
            code=(fact,), findings=(_finding("code.unparsed", "doubt", entry.path, sentence),)
        )
    imports, calls = _imports(tree), _calls(tree)
    reach = sorted(
        {kind for name in imports if (kind := reach_of_import(name)) in ("network", "native")}
        | {kind for name in calls if (kind := reach_of_call(name))}
    )
    listed = tuple(sorted(text_of(name) for name in calls if reach_of_call(name)))[:100]
    fact = CodeFact(
        file=entry.path,
        kind="python",
        imports=tuple(sorted(map(text_of, imports)))[:100],
        calls=listed,
        reach=tuple(reach),
        sentence=f"Python, never imported ({_NATIVE}).",
    )
    if not reach or reach == ["files"]:
        sentence = "Python code, which ingle never runs; other loaders may."
        return Seen(code=(fact,), findings=(_finding("code.python", "note", entry.path, sentence),))
    sentence = f"Python code that reaches for: {', '.join(reach)}. ingle never runs it."
    return Seen(code=(fact,), findings=(_finding("code.reach", "refuse", entry.path, sentence),))


def examine_json(entry: Entry) -> Seen:
    """Damage of a JSON file, and its hooks for code."""
    assert entry.source is not None
    if not entry.path.endswith(".json"):
        return Seen()
    path, twice = entry.path, []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(found)
        if len(out) < len(found):
            twice.append(True)
        return out

    raw = read_file(entry.source, _MAX_JSON + 1)
    if len(raw) > _MAX_JSON:
        if path == "tokenizer.json":  # which has checks of its own
            return Seen()
        return _alone("json.large", "refuse", path, "Larger than any such file of a release.")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return _alone("json.damaged", "refuse", path, "Not valid JSON.")
    findings, code = [], []
    if twice:
        sentence = "A key occurs twice; two programs may read two different files in it."
        findings.append(_finding("json.twice", "refuse", path, sentence))
    for hook, targets in _hooks(value):
        abroad = any("--" in target or ":" in target for target in targets)
        sentence = f"{hook} asks loaders to import code; ingle does not ({_NATIVE})."
        fact = CodeFact(
            file=path,
            kind="auto_map",
            imports=targets,
            reach=("network", "dynamic") if abroad else ("dynamic",),
            sentence=sentence,
        )
        code.append(fact)
        if abroad:
            sentence = f"{hook} names code of another repository, which loaders would download."
            findings.append(_finding("code.abroad", "refuse", path, sentence))
        else:
            sentence = f"{hook} names code of this folder for loaders to import; ingle does not."
            findings.append(_finding("code.auto-map", "note", path, sentence))
    return Seen(code=tuple(code), findings=tuple(findings))


def _imports(tree: ast.AST) -> set[str]:
    """Modules, without those of the package itself."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
    return found


def _calls(tree: ast.AST) -> set[str]:
    """Dotted names of what is called, and of what is only mentioned but reaches out; aliases that
    imports give are written out, so that `from os import system as f` and `f()` is os.system."""
    alias: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            alias |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            alias |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found: set[str] = set()
    for node in ast.walk(tree):
        mentioned = isinstance(node, ast.Name | ast.Attribute)
        name = _dotted(node.func if isinstance(node, ast.Call) else node)
        if not name:
            continue
        root, dot, rest = name.partition(".")
        name = alias.get(root, root) + dot + rest
        # `f = exec` is as good as a call; a method of the same name is not
        if isinstance(node, ast.Call) or (mentioned and name in _MENTIONED):
            found.add(name)
    return found


_MENTIONED = frozenset(("exec", "eval", "__import__", "compile", "os.system", "os.popen"))


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression; what stands before the first name is left out, as in `f().b`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    elif parts:
        parts.append("")
    return ".".join(reversed(parts))


def _hooks(value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every hook in a parsed file, wherever it stands: its key, and the names it holds."""
    waiting = [value]
    while waiting:
        place = waiting.pop()
        if isinstance(place, dict):
            for key, inside in place.items():
                if key in _HOOKS and inside:
                    yield key, tuple(sorted(set(_strings(inside))))[:50]
            waiting += place.values()
        elif isinstance(place, list):
            waiting += place


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        place = waiting.pop()
        if isinstance(place, str):
            yield text_of(place[:200])
        elif isinstance(place, dict):
            waiting += place.values()
        elif isinstance(place, list):
            waiting += place


def _alone(name: str, severity: Severity, path: str, sentence: str) -> Seen:
    return Seen(findings=(_finding(name, severity, path, sentence),))


def _finding(name: str, severity: Severity, path: str, sentence: str) -> Finding:
    return Finding(id=name, severity=severity, file=path, sentence=sentence)
