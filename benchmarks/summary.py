"""What `benchmarks/gpu.sh` found, in two tables: python benchmarks/summary.py FOLDER."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minifcn.bench import record, tables


def parts(folder: Path) -> Iterator[str]:
    """What ran, how it ended, and for how many seconds."""
    yield from ("| part | ended | seconds |", "|---|---|--:|")
    for line in (folder / "parts.tsv").read_text().splitlines():
        yield f"| {' | '.join(line.split(chr(9)))} |"


def rows(folder: Path) -> Iterator[str]:
    """One line a row of every record."""
    head = ("record", "what", "shape", "kernel", "precision", "ms", "PyTorch", "best ms", "ratio [95 %]", "verdict")
    yield from (f"| {' | '.join(head)} |", "|---|---|---|---|---|--:|---|--:|--:|---|")
    for path in sorted(folder.glob("*.json")):
        for row in record.read(path)["results"]:
            name = f"{row['layer']} {row['op']}".strip()
            own = tables.milliseconds(row.get("median_us"))
            best = tables.milliseconds(row.get("baseline_medians_us", {}).get(row.get("baseline")))
            ratio = tables.ratio(row)
            cells = (path.stem, name, row["shape"], row["kernel"], row["precision"], own)
            yield f"| {' | '.join((*cells, row.get('baseline') or '-', best, ratio, row['verdict']))} |"


def sentences(folder: Path) -> Iterator[str]:
    """What is said of each record as a whole."""
    for path in sorted(folder.glob("*.json")):
        yield f"{path.stem}: {'; '.join(tables.summary(record.read(path)))}"


def main() -> None:
    folder = Path(sys.argv[1])
    for section in (rows, sentences, parts):
        print("\n".join(section(folder)) + "\n")


if __name__ == "__main__":
    main()
