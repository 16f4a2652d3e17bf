"""Pickles by many hands: each dangerous one is refused or named, ordinary tensors raise nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.privacy.archives import HOLDING, examine_holding
from ingle.privacy.facts import Seen
from ingle.privacy.folder import Entry
from ingle.privacy.kinds import kind_of

STOP = b"."
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's old format begins with it


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def glob(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stack_global(module: bytes, name: bytes) -> bytes:
    return module + name + b"\x93"


def call(module: str, name: str, *texts: str, proto: bytes = b"\x80\x04") -> bytes:
    """A call of one function with strings."""
    arguments = b"(" + b"".join(map(short, texts)) + b"t"
    return proto + glob(module, name) + arguments + b"R" + STOP


class Shell:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)


OS = glob("os", "system")
ARG = short("true") + b"\x85"
DICT = glob("collections", "OrderedDict")
EVIL = b"\x80\x04" + OS + ARG + b"R" + STOP
LIST = b"(" + short("x") + b"l"

CALLS = {
    "eval": ("builtins", "eval"), "exec": ("builtins", "exec"), "eval 2": ("__builtin__", "eval"),
    "execfile": ("__builtin__", "execfile"), "import": ("builtins", "__import__"),
    "compile": ("builtins", "compile"), "getattr": ("builtins", "getattr"),
    "map": ("builtins", "map"), "open": ("builtins", "open"), "io.open": ("io", "open"),
    "_io": ("_io", "FileIO"), "posix": ("posix", "system"), "nt": ("nt", "system"),
    "os.popen": ("os", "popen"), "os.execv": ("os", "execv"), "os.spawn": ("os", "spawnl"),
    "Popen": ("subprocess", "Popen"), "check_output": ("subprocess", "check_output"),
    "pty": ("pty", "spawn"), "commands": ("commands", "getoutput"),
    "socket": ("socket", "create_connection"), "urlopen": ("urllib.request", "urlopen"),
    "requests": ("requests", "get"), "webbrowser": ("webbrowser", "open"),
    "smtp": ("smtplib", "SMTP"), "xmlrpc": ("xmlrpc.client", "ServerProxy"),
    "ctypes": ("ctypes", "CDLL"), "cffi": ("cffi", "FFI"), "rmtree": ("shutil", "rmtree"),
    "Path": ("pathlib", "Path.write_text"), "PosixPath": ("pathlib", "PosixPath"),
    "tempfile": ("tempfile", "NamedTemporaryFile"), "attrgetter": ("operator", "attrgetter"),
    "methodcaller": ("operator", "methodcaller"), "itemgetter": ("_operator", "itemgetter"),
    "partial": ("functools", "partial"), "reduce": ("functools", "reduce"),
    "import_module": ("importlib", "import_module"), "runpy": ("runpy", "run_path"),
    "resolve_name": ("pkgutil", "resolve_name"), "zipimport": ("zipimport", "zipimporter"),
    "marshal": ("marshal", "loads"), "code": ("types", "CodeType"),
    "function": ("types", "FunctionType"), "pickle": ("pickle", "loads"),
    "_pickle": ("_pickle", "Unpickler"), "dill": ("dill", "loads"), "joblib": ("joblib", "load"),
    "cloudpickle": ("cloudpickle.cloudpickle", "_make_function"), "timeit": ("timeit", "timeit"),
    "pdb": ("pdb", "run"), "bdb": ("bdb", "Bdb.run"), "trace": ("trace", "Trace.run"),
    "profile": ("cProfile", "run"), "doctest": ("doctest", "debug_script"),
    "logging": ("logging.config", "listen"), "pip": ("pip", "main"), "site": ("site", "main"),
    "asyncio": ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    "process": ("multiprocessing.process", "BaseProcess"),
    "thread": ("_thread", "start_new_thread"),
    "signal": ("signal", "signal"), "settrace": ("sys", "settrace"),
    "decode": ("codecs", "decode"), "pydoc": ("pydoc", "pipepager"),
    "idle": ("idlelib.pyshell", "ModifiedInterpreter.runcode"), "imaplib": ("imaplib", "IMAP4"),
    "linecache": ("linecache", "getlines"), "sqlite": ("sqlite3", "connect"),
    "copyreg": ("copyreg", "_reconstructor"), "extension": ("copy_reg", "add_extension"),
    "torch.load": ("torch", "load"), "torch.hub": ("torch.hub", "load"),
    "torch.ops": ("torch.ops", "load_library"), "torch.jit": ("torch.jit", "load"),
    "inductor": ("torch._inductor.codecache", "compile_file"),
    "cpp": ("torch.utils.cpp_extension", "load_inline"),
    "collect_env": ("torch.utils.collect_env", "run"),
    "fx": ("torch.fx.graph_module", "_deserialize_graph_module"),
    "type": ("torch._tensor", "_rebuild_from_type_v2"),
    "numpy.load": ("numpy", "load"), "memmap": ("numpy", "memmap"),
    "numexpr": ("numexpr", "evaluate"), "fromfile": ("numpy", "fromfile"),
    "runstring": ("numpy.testing._private.utils", "runstring"),
    "pandas": ("pandas", "read_pickle"), "lib": ("transformers", "AutoModel.from_pretrained"),
    "hub": ("huggingface_hub", "snapshot_download"), "keras": ("keras.models", "load_model"),
}  # fmt: skip

OPCODES: dict[str, bytes] = {
    **{f"protocol {p}": pickle.dumps(Shell(), protocol=p) for p in range(6)},
    "inst": b"(" + b"S'true'\n" + b"ios\nsystem\n" + STOP,
    "obj": b"(" + OS + b"S'true'\no" + STOP,
    "newobj": b"\x80\x02" + glob("subprocess", "Popen") + ARG + b"\x81" + STOP,
    "newobj_ex": b"\x80\x04" + glob("subprocess", "Popen") + ARG + b"}\x92" + STOP,
    "setstate of a stranger": b"\x80\x02" + glob("random", "Random") + b")\x81}b" + STOP,
    "state of a class": b"\x80\x02" + DICT + b"}b" + STOP,
    "state of slots": b"\x80\x02" + DICT + b")RN}\x86b" + STOP,
    "state of a list": b"\x80\x02]}b" + STOP,
    "memo by text": OS + b"p7\n0g7\n" + ARG + b"R" + STOP,
    "memo by byte": OS + b"q\x070h\x07" + ARG + b"R" + STOP,
    "memo by four bytes": OS + b"r\x07\0\0\x000j\x07\0\0\0" + ARG + b"R" + STOP,
    "memo by count": b"\x80\x04" + OS + b"\x940h\0" + ARG + b"R" + STOP,
    "memo of the argument": b"\x80\x04" + short("true") + b"\x940" + OS + b"h\0\x85R" + STOP,
    "twice on the stack": OS + b"2" + ARG + b"R0" + ARG + b"R" + STOP,
    "result thrown away": OS + ARG + b"R0N" + STOP,
    "result behind a mark": b"(" + OS + ARG + b"R1N" + STOP,
    "result in a tuple": OS + ARG + b"R\x85" + STOP,
    "result in a dict": b"}" + short("k") + OS + ARG + b"Rs" + STOP,
    "call of a result": OS + ARG + b"R" + ARG + b"R" + STOP,
    "call of a dict": b"\x80\x02" + DICT + b")R)R" + STOP,
    "call of a string": short("os.system") + ARG + b"R" + STOP,
    "arguments that are no tuple": b"\x80\x02" + DICT + LIST + b"R" + STOP,
    "extension 1": b"\x80\x02\x82\x01" + ARG + b"R" + STOP,
    "extension 2": b"\x80\x02\x83\x01\x02" + ARG + b"R" + STOP,
    "extension 4": b"\x80\x02\x84\x01\x02\x03\x04" + ARG + b"R" + STOP,
    "names as escapes": stack_global(b"V\\u006fs\n", b"Vsyste\\u006d\n") + ARG + b"R" + STOP,
    "names as bytes in text": stack_global(b"S'\\x6fs'\n", b"S'system'\n") + ARG + b"R" + STOP,
    "names as short strings": stack_global(b"U\x02os", b"U\x06system") + ARG + b"R" + STOP,
    "names as long strings": stack_global(b"T\2\0\0\0os", b"T\6\0\0\0system") + ARG + b"R" + STOP,
    "names as unicode": stack_global(b"X\2\0\0\0os", b"X\6\0\0\0system") + ARG + b"R" + STOP,
    "names of eight bytes": stack_global(b"\x8d\2\0\0\0\0\0\0\0os", short("system")) + STOP,
    "names from the memo": short("system") + b"q\x00" + short("os") + b"h\0\x93" + ARG + b"R"
    + STOP,
    "names joined": stack_global(
        glob("_codecs", "encode") + b"(" + short("os") + short("latin1") + b"tR", short("system")
    ) + STOP,
    "names of rot13": stack_global(
        short("os"), glob("_codecs", "encode") + b"(" + short("flfgrz") + short("rot13") + b"tR"
    ) + STOP,
    "names of bytes": stack_global(b"C\2os", b"C\6system") + ARG + b"R" + STOP,
    "a dotted name": stack_global(short("collections"), short("abc.sys.modules")) + STOP,
    "a dotted name of torch": stack_global(short("torch"), short("_utils.os.system")) + STOP,
    "an inner name of what is allowed": stack_global(
        short("collections"), short("OrderedDict.fromkeys.__self__")
    ) + STOP,
    "blanks in a name": glob("os ", " system") + ARG + b"R" + STOP,
    "a look-alike": stack_global(short("cоllections"), short("OrderedDict")) + b")R" + STOP,
    "another codec": b"\x80\x02" + glob("_codecs", "encode") + short("x") + short("idna")
    + b"\x86R" + STOP,
    "an array of another class": glob("numpy.core.multiarray", "_reconstruct") + OS + b"N)\x87R"
    + STOP,
    "a tensor of a function": glob("torch._utils", "_rebuild_tensor_v2") + OS + b"\x85R" + STOP,
    "a storage that is called": b"\x80\x02" + glob("torch", "FloatStorage") + b"J\xff\xff\xff\x7f"
    b"\x85R" + STOP,
    "items for a function": OS + b"(" + short("x") + b"e" + STOP,
    "an item for a name": DICT + short("x") + b"a" + STOP,
    "keys for a function": OS + b"(" + short("x") + short("y") + b"u" + STOP,
    "members for a function": b"\x80\x04" + OS + b"(" + short("x") + b"\x90" + STOP,
    "items for a stranger": b"\x80\x02" + glob("mailbox", "Mailbox") + ARG + b"R" + LIST + b"a"
    + STOP,
    "an id as text": b"Pstorage\n" + STOP,
    "an id as object": b"(" + short("module") + OS + short("src") + b"tQ" + STOP,
    "a second pickle": pickle.dumps({"a": 1}) + EVIL,
    "bytes behind the end": pickle.dumps({"a": 1}) + b"#!/bin/sh\n",
    "a hundred pickles": pickle.dumps(1) * 100 + EVIL,
    "a pickle in a pickle": call("pickle", "loads", "x"),
    "no end": b"\x80\x04" + OS + ARG + b"R",
    "cut in a name": b"\x80\x04cos\nsyst",
    "cut in a number": b"\x80\x04J\x01",
    "an empty stack": b"\x80\x02R" + STOP,
    "two values at the end": b"\x80\x02NN" + STOP,
    "nothing at the end": b"\x80\x02" + STOP,
    "a mark at the end": b"\x80\x02(" + STOP,
    "no mark": b"\x80\x02Nt" + STOP,
    "an empty memo": b"\x80\x02h\x05" + STOP,
    "an unknown opcode": b"\x80\x02\xff" + STOP,
    "a protocol of the future": b"\x80\x09N" + STOP,
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N" + STOP,
    "a string beyond the end": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"N" + STOP,
    "bytes beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"N" + STOP,
    "an array beyond the end": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"N" + STOP,
    "a long beyond the end": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + STOP,
    "a negative string": b"T\xff\xff\xff\xffN" + STOP,
    "a buffer from outside": b"\x80\x05\x97" + STOP,
    "text that is no text": b"\x80\x04\x8c\x02\xff\xfe" + STOP,
    "an unfinished string": b"S'abc\n" + STOP,
    "a number that is none": b"Ihello\n" + STOP,
    "a line without an end": b"S'" + b"a" * 200_000,
    "magic of torch, evil behind": MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + EVIL,
    **{f"call {name}": call(*names, "x") for name, names in CALLS.items()},
}  # fmt: skip


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                archive.writestr(name, content)
    return out.getvalue()


def tarred(*members: tuple[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return out.getvalue()


def objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Shell()], dtype=object), allow_pickle=True)
    return out.getvalue()


def deep(levels: int) -> bytes:
    data = EVIL
    for _ in range(levels):
        data = gzip.compress(data)
    return data


def spoiled(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


TORCH = ("m/data.pkl", pickle.dumps(OrderedDict(), 2)), ("m/version", b"3\n")
CONTAINERS: dict[str, tuple[str, bytes]] = {
    "in a torch file": ("w.bin", zipped(("m/data.pkl", EVIL), ("m/version", b"3\n"))),
    "beside the data": ("w.pt", zipped(*TORCH, ("m/constants.pkl", EVIL))),
    "under another name": ("w.pt", zipped(*TORCH, ("m/notes", EVIL))),
    "packed as a tensor": (
        "w.pt", zipped(*TORCH, ("m/data/0", EVIL), method=zipfile.ZIP_DEFLATED)
    ),
    "the same name twice": ("w.pt", zipped(*TORCH, ("m/data.pkl", pickle.dumps({})))),
    "the same name but for case": ("w.pt", zipped(*TORCH, ("m/DATA.pkl", pickle.dumps({})))),
    "a wrong checksum": (
        "w.pt", spoiled(zipped(("m/data.pkl", pickle.dumps("abcdef"))), b"abcdef", b"abcdeg")
    ),
    "a name that leads out": ("w.pt", zipped(*TORCH, ("../../x.pkl", pickle.dumps({})))),
    "bytes before the archive": ("w.pt", EVIL + zipped(*TORCH)),
    "text before the archive": ("w.pt", b"hello" + zipped(*TORCH)),
    "a cut archive": ("w.pt", zipped(*TORCH)[:60]),
    "an archive in an archive": ("w.zip", zipped(("a.zip", zipped(("b.pkl", EVIL))))),
    "an archive that grows": (
        "w.zip", zipped(("a.pkl", b"\0" * (40 << 20)), method=zipfile.ZIP_DEFLATED)
    ),
    "code in an archive": ("w.pt", zipped(*TORCH, ("m/code/__torch__.py", b"import os"))),
    "a persistent stranger": (
        "w.pt", zipped(("m/data.pkl", b"\x80\x02" + short("x") + b"Q."), ("m/version", b"3\n"))
    ),
    "a tar": ("w.tar", tarred(("a.pkl", EVIL))),
    "a tar named bin": ("w.bin", tarred(("a.pkl", EVIL))),
    "a tar with a link": ("w.tar", tarred(link="/etc/passwd")),
    "gz": ("w.pkl.gz", gzip.compress(EVIL)),
    "bz2": ("w.pkl", bz2.compress(EVIL)),
    "xz": ("w.joblib", lzma.compress(EVIL)),
    "cut gz": ("w.gz", gzip.compress(EVIL)[:-9]),
    "gz of a gz of a gz": ("w.gz", deep(3)),
    "gz beyond all depth": ("w.gz", deep(8)),
    "gz that grows": ("w.gz", gzip.compress(b"\0" * (64 << 20))),
    "zstd": ("w.pkl.zst", b"\x28\xb5\x2f\xfd" + bytes(20)),
    "7z": ("w.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40)),
    "an array of objects": ("w.npy", objects()),
    "arrays of objects": ("w.npz", zipped(("a.npy", objects()))),
    "a damaged array": ("w.npy", b"\x93NUMPY\x01\0\x10\0" + b"{'descr': open}\n"),
    "named safetensors": ("model.safetensors", EVIL),
    "named json": ("config.json", EVIL),
    "named by nothing": ("weights", EVIL),
    "old pickle named by nothing": ("weights", OS + b"(S'true'\ntR."),
    "named model": ("tokenizer.model", EVIL),
}  # fmt: skip


def examined(folder: Path, name: str, data: bytes) -> Seen:
    file = folder / name
    file.write_bytes(data)
    kind = kind_of(name, data[:512], data[-512:], len(data))
    assert kind in HOLDING
    return examine_holding(Entry(name, file, len(data), kind))


def refusals(seen: Seen) -> set[str]:
    return {finding.id for finding in seen.findings if finding.severity == "refuse"}


@pytest.mark.parametrize("name", OPCODES)
def test_a_dangerous_or_broken_pickle_is_refused(name: str, tmp_path: Path) -> None:
    seen = examined(tmp_path, "weights.bin", OPCODES[name])
    assert refusals(seen), seen
    assert not {finding.id for finding in seen.findings} & {"pickle.data"}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_pickle_calls_is_named(name: str, tmp_path: Path) -> None:
    (code,) = examined(tmp_path, "weights.bin", OPCODES[f"call {name}"]).code
    assert ".".join(CALLS[name]) in code.imports and ".".join(CALLS[name]) in code.calls


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_hides_in_a_container_is_refused(name: str, tmp_path: Path) -> None:
    assert refusals(examined(tmp_path, *CONTAINERS[name]))


def test_enough_techniques() -> None:
    assert len(OPCODES) - len(CALLS) >= 60 and len(CALLS) >= 60 and len(CONTAINERS) >= 30


PLAIN = {"a": [1, -2.5, None, True, "x" * 100_000, b"y" * 300, (1, (2,)), {3}, 2**200], "b": {}}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_raises_nothing(protocol: int, tmp_path: Path) -> None:
    for value in (
        PLAIN, OrderedDict(a=1), np.float64(0.5), np.arange(5), frozenset((1, 2)),
        {"mean": np.float32(3), "names": np.array(["a", "b"])}, [], 0, "text",
    ):  # fmt: skip
        seen = examined(tmp_path, "data.pkl", pickle.dumps(value, protocol=protocol))
        assert not refusals(seen) and not seen.code, value
        assert {finding.id for finding in seen.findings} == {"pickle.data"}


def test_arrays_of_numbers_raise_nothing(tmp_path: Path) -> None:
    one, many = io.BytesIO(), io.BytesIO()
    np.save(one, np.arange(12.0).reshape(3, 4))
    np.savez(many, a=np.ones(3), b=np.zeros((2, 2), np.int8))
    assert not examined(tmp_path, "a.npy", one.getvalue()).findings
    assert not examined(tmp_path, "a.npz", many.getvalue()).findings
    assert not refusals(examined(tmp_path, "a.pkl.gz", gzip.compress(pickle.dumps(PLAIN))))


@pytest.mark.parametrize("modern", [True, False])
def test_state_dicts_of_torch_raise_nothing(modern: bool, tmp_path: Path) -> None:
    import torch

    layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    layer(torch.ones(2, 3)).sum().backward()
    optimizer = torch.optim.AdamW(layer.parameters())
    optimizer.step()
    kinds = (torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool, torch.int64)
    for value in (
        layer.state_dict(), dict(layer.named_parameters()), optimizer.state_dict(),
        {str(kind): torch.zeros(2, 3).to(kind) for kind in kinds}, torch.ones(4, 4).t(),
        {"step": 3, "scale": np.float64(2), "shape": torch.Size([1]), "kind": torch.float32},
    ):  # fmt: skip
        out = io.BytesIO()
        torch.save(value, out, _use_new_zipfile_serialization=modern)
        seen = examined(tmp_path, "pytorch_model.bin", out.getvalue())
        assert {finding.id for finding in seen.findings} == {"pickle.data"}, (value, seen)
