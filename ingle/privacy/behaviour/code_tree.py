"""Python source as the rules look at it: calls by their full name, functions, names.

Source is parsed, never compiled or run. Walks keep their own stack, so that deeply nested source
costs no recursion here; what the parser itself cannot take counts as no code.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_SOURCE = 32_768  # characters
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Call:
    """One call. name: dotted, imports resolved ("hashlib.md5"). function: the one around it.
    target: names its value is assigned to, joined."""

    name: str
    node: ast.Call
    function: Function | None
    target: str

    def keyword(self, name: str) -> ast.expr | None:
        """The value of a keyword argument."""
        return next((k.value for k in self.node.keywords if k.arg == name), None)

    def argument(self, place: int, name: str = "") -> ast.expr | None:
        """A positional argument or, under its name, a keyword one."""
        if place < len(self.node.args):
            return self.node.args[place]
        return self.keyword(name) if name else None


@dataclass
class Code:
    """A parsed module and its parts, in the order of the source."""

    tree: ast.Module
    calls: list[Call] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    nodes: list[ast.AST] = field(default_factory=list)

    def calls_to(self, *names: str) -> Iterator[Call]:
        """Calls of these full names."""
        return (call for call in self.calls if call.name in names)

    def methods(self, *names: str) -> Iterator[Call]:
        """Calls of methods of these names on anything."""
        for call in self.calls:
            function = call.node.func
            if isinstance(function, ast.Attribute) and function.attr in names:
                yield call


def parse(source: str) -> Code | None:
    """The parts of a module; None for what is no Python, is empty or is too long."""
    if not source.strip() or len(source) > MAX_SOURCE:
        return None
    try:
        with warnings.catch_warnings():  # of odd escapes in the source, which is not ours
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not any(isinstance(node, _STATEMENTS) for node in tree.body):
        return None  # prose that happens to parse, such as one word
    return _read(tree)


_STATEMENTS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign,
    ast.With, ast.For, ast.While, ast.If, ast.Try,
)  # fmt: skip


def _read(tree: ast.Module) -> Code:
    code = Code(tree)
    imports = _imports(tree)
    stack: list[tuple[ast.AST, Function | None, str]] = [(tree, None, "")]
    while stack:
        node, function, target = stack.pop()
        code.nodes.append(node)
        if isinstance(node, ast.Call):
            code.calls.append(Call(dotted(node.func, imports), node, function, target))
        elif isinstance(node, Function):
            code.functions.append(node)
            function, target = node, ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            goals = node.targets if isinstance(node, ast.Assign) else [node.target]
            target = " ".join(sorted(set().union(*map(names_in, goals))))
        stack += [(child, function, target) for child in reversed(list(ast.iter_child_nodes(node)))]
    return code


def _imports(tree: ast.Module) -> dict[str, str]:
    """Local name -> full name, of every import wherever it stands."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return known


def dotted(node: ast.AST, imports: dict[str, str]) -> str:
    """`a.b.c` of an attribute chain; "" in front where it starts with something else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(imports.get(node.id, node.id) if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


def names_in(node: ast.AST | None) -> set[str]:
    """Identifiers and attribute names below a node, in lower case."""
    found: set[str] = set()
    for child in ast.walk(node) if node is not None else ():
        if isinstance(child, ast.Name):
            found.add(child.id.lower())
        elif isinstance(child, ast.Attribute):
            found.add(child.attr.lower())
        elif isinstance(child, ast.arg):
            found.add(child.arg.lower())
    return found


def is_true(node: ast.AST | None) -> bool:
    """The constant True."""
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.AST | None) -> bool:
    """The constant False."""
    return isinstance(node, ast.Constant) and node.value is False


def text_of(node: ast.AST | None) -> str | None:
    """The value of a string constant, None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_built(node: ast.AST | None) -> bool:
    """Whether a string is put together from values: f-string, +, % or format."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        if text_of(node.left) is not None:
            return True
        node = node.left
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and not _all_text(node)
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Attribute) and function.attr == "format"


def parameters(function: Function | None) -> set[str]:
    """Names of a function's parameters, self left out."""
    if function is None:
        return set()
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return {one.arg.lower() for one in every} - {"self", "cls"}


def _all_text(node: ast.BinOp) -> bool:
    stack: list[ast.AST] = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            stack += [part.left, part.right]
        elif text_of(part) is None:
            return False
    return True
