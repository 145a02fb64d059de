"""One self-contained page for an op: its derivation typeset, its windows drawn, its example worked in tables."""

from __future__ import annotations

import re
from html import escape

import numpy as np

from .derivation import LEGEND, Derivation
from .drawing import figures
from .formulas import is_display, typeset
from .terms import number, planes
from .worked import Row, Worked, conclusion, explanation

STYLE = """
:root { --ink: #1b2330; --paper: #fdfdfb; --soft: #5d6878; --line: #d8dce3; --mark: #fff1c9; --edge: #d9820f;
  --chosen: #d6e8ff; --blue: #1d5fa8; --good: #1d7a46; --weight: #a85a00; --bad: #b3261e; --tint: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --paper: #14181f; --soft: #9aa5b5; --line: #353d4a; --mark: #4a3b12; --edge: #f0a94a;
    --chosen: #173a61; --blue: #82b7f2; --good: #6fcf97; --weight: #f6bd6f; --bad: #ff8a80; --tint: #1c222c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink); background: var(--paper);
  font: 17px/1.6 Georgia, "Times New Roman", serif; }
h1, h2, h3, th, .numbers, .call, nav { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 2rem; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 0.8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 0.4rem; color: var(--blue); }
p { margin: 0.6rem 0; max-width: 48rem; }
code { font: 0.88em ui-monospace, Consolas, monospace; }
.title { font-size: 1.15rem; color: var(--soft); margin: 0.2rem 0 1rem; }
.legend { color: var(--soft); font-size: 0.95rem; }
.display { margin: 0.9rem 0 0.9rem; padding: 0.7rem 1.1rem; background: var(--tint); border-left: 3px solid var(--blue);
  max-width: none; overflow-x: auto; font-size: 1.05rem; }
.gap { display: inline-block; width: 1.6em; }
math { font-family: Georgia, "Times New Roman", serif; } mo.sum { font-size: 1.45em; }
mi { text-transform: none; font-style: italic; } mi.word { font-style: normal; }
munder > :last-child { padding-top: 0.25em; } mfrac > * { padding: 0.12em 0.25em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.4rem; margin: 0.6rem 0; }
dt { font-weight: bold; } dd { margin: 0; }
.source { font-size: 0.95rem; color: var(--soft); }
.call { font: 1rem ui-monospace, Consolas, monospace; padding: 0.5rem 1.1rem; background: var(--tint); overflow-x: auto;
  max-width: none; }
.arrays, .figures { display: flex; flex-wrap: wrap; gap: 1.2rem 2.6rem; margin: 1rem 0; align-items: flex-start; }
.array table { border-collapse: collapse; } .array td { border: 1px solid var(--line); padding: 0.15rem 0.6rem;
  text-align: right; font-variant-numeric: tabular-nums; min-width: 2.4rem; }
.array .name { margin-bottom: 0.2rem; }
.steps { columns: 2 24rem; column-gap: 3rem; margin: 0.8rem 0; padding: 0; list-style: none; }
.steps li { padding: 0.15rem 0; break-inside: avoid; }
.scroll { overflow-x: auto; }
table.numbers { border-collapse: collapse; width: 100%; font-size: 0.95rem; font-variant-numeric: tabular-nums; }
.numbers th { text-align: right; white-space: nowrap;
  font-weight: 600; color: var(--soft); padding: 0.3rem 0.9rem; font-size: 0.82rem; }
.numbers td { border-top: 1px solid var(--line); padding: 0.35rem 0.9rem; text-align: right; vertical-align: top;
  white-space: nowrap; }
.numbers td.sum { text-align: left; width: 100%; white-space: normal; } .numbers td.element { text-align: left; }
.term { white-space: nowrap; } .figures-line { display: block; color: var(--soft); }
.agrees { color: var(--good); font-weight: bold; } .disagrees, tr.wrong td { color: var(--bad); font-weight: bold; }
svg { max-width: 100%; height: auto; }
svg text { font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink); }
svg .value { text-anchor: middle; } svg .name { font-style: italic; fill: var(--soft); }
svg .weight { text-anchor: end; font-size: 11px; fill: var(--weight); } svg .weight.small { font-size: 9.5px; }
svg .cell { fill: var(--paper); stroke: var(--line); } svg .used { fill: var(--mark); }
svg .chosen { fill: var(--chosen); stroke: var(--blue); stroke-width: 2; }
svg .outside { fill: none; stroke-dasharray: 3 3; }
svg .window { fill: none; stroke: var(--edge); stroke-width: 3; }
svg .ring { fill: none; stroke: var(--edge); stroke-width: 2; }
svg .arrow { fill: none; stroke: var(--soft); stroke-width: 2; }
"""


def page(text: Derivation, worked: Worked) -> str:
    """The page as HTML that is also well-formed XML; it loads nothing from anywhere."""
    example = worked.example
    upstream = f"d{example.output}"
    verdict = "agrees" if worked.agrees else "disagrees"
    body = [
        f"<h1>{escape(text.op)}</h1><p class='title'>{typeset(text.title)}</p>",
        f"<p class='legend'>{typeset(LEGEND)}</p>",
        *(f"<h2>{name}</h2>{_section(name, section)}" for name, section in text.sections.items()),
        "<h2>A worked example</h2>",
        f"<p class='call'>{escape(f'{example.output} = {example.call}')}</p>",
        _arrays(example.given),
        _notes(example.notes),
        _pictures(worked),
        f"<h2>Forward: {_name(example.output)}, term by term</h2>",
        _steps(example.steps),
        _table(worked, worked.outputs),
        f"<h2>Backward: {_name(upstream)} is given</h2>",
        _arrays({upstream: example.dy}),
        _notes(explanation(worked)),
        *(f"<h3>{_name('d' + name)}</h3>{_table(worked, rows)}" for name, rows in worked.gradients.items()),
        *(f"<p class='{verdict}'>{escape(line)}</p>" for line in conclusion(worked).splitlines()),
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'/>"
        f"<title>minifcn: {escape(text.op)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(part for part in body if part)}\n</body></html>\n"
    )


# --- derivation --------------------------------------------------------------------------------------------------


def _section(name: str, section: str) -> str:
    if name == "Source":  # titles, no formulas
        quoted = re.sub("`(.*?)`", r"<code>\1</code>", escape(" ".join(section.split())))
        return f"<p class='source'>{quoted}</p>"
    return "".join(map(_paragraph, section.split("\n\n")))


def _paragraph(paragraph: str) -> str:
    lines = paragraph.splitlines()
    choices = [re.fullmatch(r"(\w+) {2,}(.*)", line) for line in lines]
    if len(lines) > 1 and all(choices):
        return "<dl>" + "".join(f"<dt>{c[1]}</dt><dd>{typeset(c[2])}</dd>" for c in choices) + "</dl>"
    joined = " ".join(line.strip() for line in lines)
    if is_display(joined):
        return f"<p class='display'>{typeset(joined)}</p>"
    lead = re.match(r"(Input|Weight|Bias)\. ", joined)
    if lead:
        return f"<p><b>{lead[0]}</b>{typeset(joined[lead.end() :])}</p>"
    return f"<p>{typeset(joined)}</p>"


# --- example -----------------------------------------------------------------------------------------------------


def _name(name: str) -> str:
    return f"<i>{escape(name)}</i>"


def _notes(notes: tuple[str, ...] | list[str]) -> str:
    return "<ul>" + "".join(f"<li>{typeset(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _steps(steps: tuple[str, ...]) -> str:
    return "<ul class='steps'>" + "".join(f"<li>{typeset(step)}</li>" for step in steps) + "</ul>" if steps else ""


def _arrays(arrays: dict[str, np.ndarray]) -> str:
    blocks = []
    for title, cells in (plane for name, array in arrays.items() for plane in planes(name, array)):
        rows = "".join("<tr>" + "".join(f"<td>{_minus(cell)}</td>" for cell in row) + "</tr>" for row in cells)
        name = typeset(title) if "[" in title else _name(title)
        blocks.append(f"<div class='array'><div class='name'>{name}</div><table>{rows}</table></div>")
    return f"<div class='arrays'>{''.join(blocks)}</div>"


def _pictures(worked: Worked) -> str:
    drawn = figures(worked)
    if not drawn:
        return ""
    title = "The windows" if len(drawn) > 1 else "The window"
    backward = (
        f"Read against the arrows, the same pictures show the backward pass: d{worked.example.output} goes back to "
        f"every marked element it came from, times the weight in its corner, if there is one."
    )
    return (
        f"<h3>{title}</h3><p>{typeset(worked.example.drawing.caption)}</p>"
        f"<div class='figures'>{''.join(drawn)}</div><p>{typeset(backward)}</p>"
    )


def _table(worked: Worked, rows: list[Row]) -> str:
    has_slopes = rows[0].slopes is not None
    head = ["by hand", f"kernel ({worked.device})", *(["difference"] if has_slopes else [])]
    lines = [f"<tr><th></th><th></th>{''.join(f'<th>{escape(title)}</th>' for title in head)}</tr>"]
    untouched = [row for row in rows if row.is_untouched]
    for row in rows:
        if not row.is_untouched:
            lines.append(_row(worked, row))
    if untouched:
        name = f"{len(untouched)} others" if len(untouched) < len(rows) else "all"
        cells = f"<td class='element'>{name}</td><td class='sum'>= 0, {escape(worked.example.untouched)}</td>"
        lines.append(f"<tr>{cells}{'<td>0</td>' * len(head)}</tr>")
    return f"<div class='scroll'><table class='numbers'>{''.join(lines)}</table></div>"


def _row(worked: Worked, row: Row) -> str:
    total = row.by_hand
    if total.terms:
        terms = " + ".join(f"<span class='term'>{typeset(term)}</span>" for term in total.terms)
        figures = " + ".join(f"<span class='term'>{_figures(shown)}</span>" for shown in total.numbers)
        result = "" if total.numbers == (number(total.value),) else f" = {_minus(number(total.value))}"
        sum_ = f"= {terms}<span class='figures-line'>= {figures}{result}</span>"
    else:
        sum_ = f"= 0, {escape(worked.example.untouched)}"
    numbers = [number(total.value), number(row.kernel)] + ([row.slopes.text] if row.slopes else [])
    cells = "".join(f"<td>{_minus(text)}</td>" for text in numbers)
    kind = "" if row.agrees else " class='wrong'"
    return f"<tr{kind}><td class='element'>{typeset(total.target)}</td><td class='sum'>{sum_}</td>{cells}</tr>"


def _minus(text: str) -> str:
    """With a real minus sign."""
    return escape(re.sub(r"(?<![\w.])-(?=[\d( ])", "−", text))


def _figures(shown: str) -> str:
    return _minus(shown).replace("*", " × ")
