"""The report's HTML: style, script, tables and number formats. Everything that enters a page is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ray_al.results.figure import DARK

NOTHING = "\N{EN DASH}"  # what a missing number looks like


@dataclass(frozen=True)
class Column:
    """A table column; `cell` gives a row's text and, where it differs, what to sort by. `note` explains the header."""

    header: str
    cell: Callable[[Any], str | tuple[str, float]]
    numeric: bool = True
    note: str = ""


def html_table(rows: Iterable[Any], columns: Sequence[Column]) -> str:
    """A table that scrolls sideways where it is too wide, and sorts on a click on a header."""
    head = "".join(
        f'<th{_class(c)} scope="col"{_title(c)}><button type="button">{escape(c.header)}</button></th>' for c in columns
    )
    body = "".join(f"<tr>{''.join(_cell(c, row) for c in columns)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def _cell(column: Column, row: Any) -> str:
    value = column.cell(row)
    text, key = value if isinstance(value, tuple) else (value, None)
    order = "" if key is None else f' data-v="{"" if np.isnan(key) else repr(float(key))}"'
    return f"<td{_class(column)}{order}>{escape(text)}</td>"


def _class(column: Column) -> str:
    return ' class="n"' if column.numeric else ""


def _title(column: Column) -> str:
    return f' title="{escape(column.note)}"' if column.note else ""


def number(value: float, digits: int = 4, sign: bool = False) -> tuple[str, float]:
    """Text of a number and the number; a dash where there is none."""
    text = NOTHING if np.isnan(value) else f"{value:{'+' if sign else ''},.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}"), float(value)


def interval(mean: float, low: float, high: float, sign: bool = False) -> tuple[str, float]:
    """`0.8307 [0.8251, 0.8363]`; without the brackets where one seed gives no interval."""
    text = number(mean, sign=sign)[0]
    if not np.isnan(low):
        text += f" [{number(low, sign=sign)[0]}, {number(high, sign=sign)[0]}]"
    return text, float(mean)


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `12 min 5 s`, `3 h 20 min`."""
    if np.isnan(seconds):
        return NOTHING
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def section(name: str, heading: str, body: str, lead: str = "") -> str:
    """A section with an anchor; `lead` is a sentence under the heading; both it and `body` are HTML."""
    opening = f"<p class=lead>{lead}</p>\n" if lead else ""
    return f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n{opening}{body}</section>\n'


def document(title: str, body: str) -> str:
    """A whole page that needs nothing from outside; the policy in its head forbids the browser to ask."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


_DARK_VARIABLES = "".join(f"--{light[1:]}:{dark};" for light, dark in DARK.items())
STYLE = (
    """
:root{--ink:#16181d;--soft:#5b616e;--page:#fff;--card:#f5f6f8;--line:#dfe2e8;--accent:#0b5cad;--good:#0a6b46;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#a3a9b6;--page:#14161a;--card:#1d2026;--line:#343943;
--accent:#7db8f0;--good:#5fd0a0;--bad:#ff8a80;"""
    + _DARK_VARIABLES
    + """}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--line)}
p{margin:6px 0;max-width:75ch}.lead,.soft{color:var(--soft)}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--card);padding:12px 14px;border-radius:6px;overflow-x:auto;margin:8px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;margin:18px 0 0;padding:0}
.tiles div{background:var(--card);border-radius:8px;padding:10px 14px;min-width:0}
.tiles dt{color:var(--soft);font-size:13px}.tiles dd{margin:0;font-size:1.25rem;font-weight:600;line-height:1.35}
.tiles dd small{display:block;font-size:12.5px;font-weight:400;color:var(--soft);overflow-wrap:anywhere;line-height:1.4}
.bad{color:var(--bad)}.good{color:var(--good)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:22px 30px;margin-top:10px}
figure{margin:0;min-width:0;max-width:640px}svg.figure{display:block;width:100%;height:auto;font-family:inherit}
figcaption{font-size:14px;margin:2px 0 0 8px;overflow-wrap:anywhere}
svg.lit .arm{opacity:.13}svg.lit .arm.on{opacity:1}svg .arm{transition:opacity .12s}
.choice{display:flex;flex-wrap:wrap;gap:6px;margin:10px 0 0}
.choice label{padding:3px 12px;border:1px solid var(--line);border-radius:99px;cursor:pointer;font-size:14px}
input.pick{position:absolute;opacity:0;pointer-events:none}
.wide{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:4px 14px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td{overflow-wrap:break-word;max-width:38ch}
th.n,td.n{text-align:right;white-space:nowrap;padding-left:8px}
th button{all:unset;cursor:pointer;font-weight:600;color:var(--soft);font-size:13px;white-space:nowrap}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
tbody tr:hover{background:var(--card)}
details pre{white-space:pre-wrap;overflow-wrap:anywhere;max-height:320px;overflow-y:auto}
summary{cursor:pointer}
@media (max-width:520px){main{padding:18px 14px 40px}h1{font-size:1.4rem}.tiles{grid-template-columns:1fr 1fr}
.tiles div:last-child{grid-column:1/-1}}
@media print{.choice{display:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""
)
SCRIPT = """
document.querySelectorAll("th button").forEach(button => button.onclick = () => {
  const th = button.parentNode, body = th.closest("table").tBodies[0], i = th.cellIndex;
  const down = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  th.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  th.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
  const key = row => row.cells[i].dataset.v ?? row.cells[i].textContent;
  const compare = (a, b) => a === b ? 0 : a === "" ? 1 : b === "" ? -1 :
    down * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
});
document.querySelectorAll("svg.figure").forEach(svg => svg.onpointerover = event => {
  const arm = event.target.closest(".arm");
  svg.classList.toggle("lit", !!arm);
  svg.querySelectorAll(".arm").forEach(g => g.classList.toggle("on", !!arm && g.dataset.arm === arm.dataset.arm));
});
document.querySelectorAll("svg.figure").forEach(svg => svg.onpointerleave = () => svg.classList.remove("lit"));
"""
