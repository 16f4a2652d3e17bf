"""The report as one page that needs nothing else and may load nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape

from ingle.privacy.audit_report import Section, clean, headline, sections
from ingle.privacy.facts import Audit

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .25rem .75rem .25rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td { font: 13px/1.5 ui-monospace, monospace; }
.admitted { color: #1a7f37; }
.refused { color: #cf222e; }
.undecided { color: #9a6700; }
"""


def html_page(audit: Audit) -> str:
    """A whole HTML document: no script, no address, nothing of the folder as markup."""
    allowed = b64encode(sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )
    title = _text(headline(audit))
    body = "\n".join(line for section in sections(audit) for line in _section(section))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 class="{_text(audit.verdict.decision)}">{title}</h1>\n{body}\n'
        f"<p>Schema {_text(audit.schema)}. The same files give the same page.</p>\n"
        "</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> Iterator[str]:
    yield f"<section>\n<h2>{_text(section.title)}</h2>"
    for sentence in section.sentences:
        yield f"<p>{_text(sentence)}</p>"
    if section.rows:
        heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in section.columns)
        yield f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>"
        for row in section.rows:
            yield "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        yield "</tbody>\n</table>"
    yield "</section>"


def _text(text: str) -> str:
    return escape(clean(text))
