"""The page of all experiments, written from what was recorded and from nothing else.

Two passages between markers (`minifcn.markers`) are rewritten, the table and the results; the page's other text stays.
Records and figures are kept in the folder of the page's name beside it: docs/experiments.md, docs/experiments/*.json.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import markers
from ..errors import FileWriteError, MinifcnError
from ..files import write_atomically, write_text
from . import experiment
from .experiment import Experiment, Result

KIND = "experiments"
NEW_PAGE = "# The paper's experiments\n\n{table}\n\n{results}\n"


def write_document(page: Path, folders: Iterable[Path], experiments: dict[str, Experiment]) -> list[str]:
    """Rewrite `page` from the records beside it and those in `folders`, which are copied there; what it then has.

    A page that does not exist is begun. Raises MinifcnError for a folder without records, a record of an unknown
    experiment, or one without its figure.
    """
    own = page.parent / page.stem
    for folder in folders:
        _copy(folder, own)
    results = {file.stem: experiment.read(file) for file in sorted(own.glob("*.json"))}
    for name, result in results.items():
        if result.about.get("experiment") not in experiments:
            raise MinifcnError(f"{own / name}.json: of an unknown experiment, {result.about.get('experiment')!r}")
    order = list(experiments)
    ordered = sorted(results, key=lambda name: (order.index(results[name].about["experiment"]), name))
    found = [(name, results[name], experiments[results[name].about["experiment"]]) for name in ordered]
    passages = {"table": _table(found), "results": "\n".join(_section(*one, own.name) for one in found).rstrip()}
    if page.exists():
        text = markers.replaced(markers.read(page), KIND, passages, page)
    else:
        text = NEW_PAGE.format(**{name: markers.marked(KIND, name, passage) for name, passage in passages.items()})
    write_text(page, text)
    return ordered


def _copy(folder: Path, own: Path) -> None:
    records = sorted(folder.glob("*.json"))
    if not records:
        raise MinifcnError(f"{folder}: holds no records of experiments (*.json)")
    if folder.resolve() == own.resolve():
        return
    try:
        own.mkdir(parents=True, exist_ok=True)
        for record in records:
            experiment.read(record)
            for file in (record, record.with_suffix(".png")):
                write_atomically(own / file.name, file.read_bytes())
    except OSError as error:
        raise FileWriteError(f"cannot copy the records of {folder} to {own}: {error.strerror}") from error


# --- words -------------------------------------------------------------------------------------------------------


def command(result: Result, chosen: Experiment) -> str:
    """The command that makes such a result."""
    about = result.about
    words = ["minifcn", "experiment", chosen.name] + ["--quick"] * about["quick"]
    defaults = chosen.defaults | (chosen.quick if about["quick"] else {})
    for name, value in about["settings"].items():
        default = defaults.get(name)
        if value != (list(default) if isinstance(default, tuple) else default):
            words += _option(name, value)
    if chosen.seeds and len(about["seeds"]) != (1 if about["quick"] else chosen.seeds):
        words += ["--seeds", str(len(about["seeds"]))]
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _on(result: Result) -> str:
    """The network and the data of a result, as far as they are its settings."""
    settings = result.about["settings"]
    parts = [str(settings[name]).partition(":")[0] for name in ("backbone", "data") if name in settings]
    return ", ".join(parts)


def _table(found: list[tuple[str, Result, Experiment]]) -> str:
    lines = ["| experiment | on | measured here | as in the paper |", "|---|---|---|---|"]
    for name, result, chosen in found:
        agrees = "yes" if result.agrees else "**no**"
        lines.append(f"| [{chosen.title}](#{name}) | {_on(result) or '-'} | {result.summary} | {agrees} |")
    return "\n".join(lines)


def rows(result: Result) -> str:
    """The rows of a result as a Markdown table: numbers flush right."""
    text = [kind == "s" for kind in result.columns.values()]
    lines = [
        "| " + " | ".join(result.columns) + " |",
        "|" + "|".join("---" if one else "---:" for one in text) + "|",
    ]
    lines += [
        "| " + " | ".join(cell(row.get(title), kind) for title, kind in result.columns.items()) + " |"
        for row in result.rows
    ]
    return "\n".join(lines)


def cell(value: Any, kind: str) -> str:
    """A value as its column writes it; a dash where there is none."""
    return "-" if value is None else format(value, kind)


def _section(name: str, result: Result, chosen: Experiment, folder: str) -> str:
    about = result.about
    seeds = len(about["seeds"])
    how = f"{about['threads']} threads" + (f", {seeds} seeds" if seeds > 1 else "")
    parts = [
        f'<a id="{name}"></a>\n### {chosen.title}' + (f": {_on(result)}" if _on(result) else ""),
        f"**The paper.** {chosen.paper}",
        f"**Here.** {result.measured}",
        rows(result),
        f"![{chosen.title}]({folder}/{name}.png)",
        f"`{command(result, chosen)}` ({how}, {about['date']})",
    ]
    return "\n\n".join(parts) + "\n"
