"""What kind of file something is: by its first bytes where they tell, else by its name.

Content wins: a pickle named `model.safetensors` is a pickle.
"""

from __future__ import annotations

import re

# The first bytes, the longer before those they contain.
_MAGIC = (
    (b"MZqFpD", "llamafile"),
    (b"\x7fELF", "executable"),
    (b"MZ", "executable"),
    *((magic, "executable") for magic in (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf")),
    *((magic, "executable") for magic in (b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")),
    (b"\xca\xfe\xba\xbe", "executable"),
    (b"\0asm", "executable"),
    (b"\x93NUMPY", "numpy"),
    *((magic, "gguf") for magic in (b"GGUF", b"ggml", b"ggjt", b"ggla", b"lmgg", b"tjgg")),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    *((magic, "compressed") for magic in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")),
    *((magic, "compressed") for magic in (b"\x04\x22\x4d\x18", b"\x5d\0\0", b"ZF")),
    *((magic, "archive") for magic in (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"PK")),
    *((magic, "image") for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8")),
    (b"%PDF-", "document"),
)
# The ends of names, the longer before those they contain.
_ENDS = (
    (".safetensors.index.json", "index"),
    (".safetensors", "safetensors"),
    *((end, "pickle") for end in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")),
    *((end, "numpy") for end in (".npy", ".npz")),
    *((end, "gguf") for end in (".gguf", ".ggml")),
    *((end, "hdf5") for end in (".h5", ".hdf5")),
    *((".onnx_data", "onnx"), (".onnx", "onnx"), (".msgpack", "msgpack"), (".keras", "keras")),
    *((".llamafile", "llamafile"), (".tflite", "tflite"), (".pb", "tensorflow")),
    *((end, "archive") for end in (".zip", ".tar", ".7z", ".rar", ".nemo", ".mar", ".whl")),
    *((end, "compressed") for end in (".gz", ".bz2", ".xz", ".zst", ".lz4", ".tgz")),
    *((end, "executable") for end in (".so", ".dll", ".dylib", ".exe", ".pyd", ".wasm")),
    *((end, "bytecode") for end in (".pyc", ".pyo", ".class", ".jar")),
    *((end, "script") for end in (".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".rb", ".pl")),
    *((".py", "python"), (".pyi", "python"), (".ipynb", "notebook")),
    *((end, "template") for end in (".jinja", ".jinja2", ".j2")),
    *((".md", "document"), (".rst", "document"), (".pdf", "document"), (".csv", "document")),
    (".html", "document"),
    *((end, "image") for end in (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")),
    *((end, "text") for end in (".txt", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".jsonl")),
    *((".model", "sentencepiece"), (".sig", "signature"), (".sigstore", "signature")),
    *((".metadata", "text"), (".lock", "text"), (".json", "config")),
)
_NAMES = {
    "tokenizer.json": "tokenizer", "tokenizer_config.json": "tokenizer", "vocab.json": "tokenizer",
    "merges.txt": "tokenizer", "special_tokens_map.json": "tokenizer",
    "added_tokens.json": "tokenizer", "chat_template.json": "template", "readme.md": "card",
    ".gitattributes": "text", ".gitignore": "text",
}  # fmt: skip
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|use_policy)", re.IGNORECASE)

TEXTS = (
    *("index", "config", "tokenizer", "template", "card", "licence", "document", "text"),
    *("python", "script", "notebook", "signature"),
)
"""Kinds that are read as text."""

KINDS = tuple(
    sorted(
        {kind for _, kind in (*_MAGIC, *_ENDS)}
        | {*_NAMES.values(), *TEXTS, "torchscript", "sentencepiece", "unknown"}
        | {"link", "folder", "special", "sparse", "unreadable"}
    )
)
"""All kinds there are."""


def kind_of(path: str, head: bytes, tail: bytes, size: int) -> str:
    """The kind of a file by its first 512 bytes (or all, if it is shorter), last ones and name."""
    name = path.rpartition("/")[2].lower()
    by_name = _by_name(name)
    if by_name == "safetensors" and _is_safetensors(head, size):
        return "safetensors"  # its length may look like another format's first bytes
    if head[:2] == b"PK" or b"PK\x05\x06" in tail:
        return by_name if by_name in ("pickle", "numpy", "keras") else "archive"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "pickle"
    if head[257:262] == b"ustar":
        return "archive"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"#!") and by_name != "python":
        return "script"
    if by_name in TEXTS and (b"\0" in head):
        return "unknown"  # no text
    return by_name


def _by_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    for end, kind in _ENDS:
        if name.endswith(end) and not (kind in ("document", "text") and _LICENCE.match(name)):
            return kind
    return "licence" if _LICENCE.match(name) else "unknown"


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size
