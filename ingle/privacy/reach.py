"""What a name of a Python module or function can reach: network, process, files, ...

Used to tell a reader what listed code could do. What decides is never this table: pickles are
held against a list of what is allowed, and code of a model folder is never run.
"""

from __future__ import annotations

_ROOTS = {
    "network": (
        "socket ssl urllib urllib2 urllib3 http httplib httpx requests aiohttp ftplib smtplib "
        "poplib imaplib telnetlib nntplib xmlrpc socketserver asyncio websocket websockets "
        "paramiko webbrowser huggingface_hub grpc zmq boto3 pycurl dns wsgiref select"
    ),
    "process": (
        "os posix nt subprocess pty commands popen2 platform multiprocessing signal sys "
        "resource concurrent threading _thread _posixsubprocess idlelib distutils pip setuptools "
        "ensurepip venv cProfile profile pdb trace timeit doctest bdb code atexit uuid"
    ),
    "dynamic": (
        "importlib imp runpy pkgutil zipimport operator _operator functools types inspect codeop "
        "marshal pickle _pickle cPickle dill cloudpickle joblib copyreg copy_reg gc ast builtins "
        "__builtin__ site logging numexpr sympy weakref"
    ),
    "native": "ctypes _ctypes cffi mmap numba triton cupy",
    "files": "shutil pathlib io _io tempfile glob fileinput linecache sqlite3 shelve dbm zipfile",
}
_BY_ROOT = {root: kind for kind, roots in _ROOTS.items() for root in roots.split()}
_CALLS = {
    "network": (
        "create_connection urlopen urlretrieve getaddrinfo hf_hub_download snapshot_download"
    ),
    "process": (
        "system popen Popen spawn spawnl spawnv execv execve execl execvp fork forkpty kill "
        "check_output check_call getoutput getstatusoutput startfile posix_spawn"
    ),
    "dynamic": "eval exec compile __import__ import_module getattr setattr run_path run_module",
    "native": "CDLL WinDLL PyDLL cdll LoadLibrary load_library load_inline dlopen CFUNCTYPE",
    "files": "open remove unlink rmtree rename write_text write_bytes copyfile copytree move chmod",
}
_BY_CALL = {call: kind for kind, calls in _CALLS.items() for call in calls.split()}
_HARMLESS_OF_OS = ("path", "environ", "getenv", "sep", "cpu_count", "getcwd", "listdir", "fspath")


def reach_of_import(module: str) -> str | None:
    """What importing a module is a sign of; None for what only computes."""
    return _BY_ROOT.get(module.partition(".")[0])


def reach_of_call(dotted: str) -> str | None:
    """What calling `a.b.c` reaches; None for what only computes."""
    root, *rest = dotted.split(".")
    if root == "os" and rest and rest[0] in (*_HARMLESS_OF_OS, "makedirs", "mkdir", "stat"):
        return None
    last = dotted.rpartition(".")[2]
    if last in _BY_CALL and (last not in _METHODS or len(rest) == 0 or root in _BY_ROOT):
        return _BY_CALL[last]
    if root in _BY_ROOT and _BY_ROOT[root] in ("network", "native", "process") and rest:
        return _BY_ROOT[root] if root not in _QUIET else None
    return None


# Names that are also ordinary methods: `model.eval()`, `re.compile`, `tensor.move`, `file.open`.
_METHODS = frozenset(
    ("eval", "compile", "spawn", "kill", "open", "remove", "rename", "move", "copyfile", "fork")
)
# Modules that ordinary model code calls into without reaching out.
_QUIET = frozenset(("sys", "threading", "platform", "triton", "numba", "uuid", "trace", "code"))
