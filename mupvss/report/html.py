"""The report page: one self-contained HTML file, without scripts and without anything loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fbfaf8;--line:#d8d4cc;--mark:#a33b2a}
@media(prefers-color-scheme:dark){:root{--ink:#ececea;--paper:#18181a;--line:#3a3a3e;--mark:#f08a6c}}
body{margin:0 auto;max-width:1180px;padding:1.5rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--line)}
td:first-child,th:first-child{text-align:left}.scroll{overflow-x:auto}.big{font-size:1.3rem;font-weight:600}
.pictures td,.pictures th{padding:.2rem .5rem;text-align:left}.pictures img{height:120px;display:block;border-radius:3px}
.curves{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:300px}figcaption{font-weight:600}
svg polyline{fill:none;stroke:var(--mark);stroke-width:1.6}svg .axis{fill:none;stroke:var(--line)}
svg text{font-size:10px;fill:var(--ink)}pre{overflow-x:auto;border:1px solid var(--line);padding:.8rem}
.plot{max-width:760px;width:100%}.plot text{font-size:11px}.plot polyline{stroke-width:2}img.wide{max-width:100%}
h3{font-size:1rem;margin:1.4rem 0 0}.gallery{display:flex;flex-wrap:wrap;gap:1.2rem}.gallery figure{width:auto}
.gallery img{width:min(29vw,178px);border-radius:3px;margin-right:3px}.key{margin-right:1em;white-space:nowrap}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
"""


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """Sections are (heading, HTML); the heading may be empty."""
    headed = [(f"<h2>{escape(heading)}</h2>" if heading else "", content) for heading, content in sections if content]
    body = "".join(f"<section>{heading}{content}</section>" for heading, content in headed)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; the header is text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def picture(url: str, text: str) -> str:
    return f'<img src="{url}" alt="{escape(text)}">'
