"""`minifcn evaluate`: score a run on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import metrics, tasks, viz
from ..data import KNOWN, open_dataset
from ..files import write_json
from ..segmenter import sum_confusion
from .console import add_device, add_tile, chosen_tile, console, print_scores, scores_table, tracked

HELP = "score a run: pixel accuracy, mean accuracy, mean IU, frequency weighted IU, and each class"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument("--data", required=True, help=f"data set: {KNOWN}")
    parser.add_argument("--split", default="val", help="part of the data set (default: val)")
    parser.add_argument("--seed", type=int, default=0, help="seed of generated scenes (default: 0)")
    parser.add_argument(
        "--absent",
        default="nanmean",
        choices=metrics.ABSENT,
        help="rule for classes that do not occur: " + "; ".join(f"{k}: {v}" for k, v in metrics.ABSENT.items()),
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores and the confusion matrix")
    parser.add_argument("--confusion", type=Path, metavar="PNG", help="draw the confusion matrix")
    add_tile(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    task, segmenter = tasks.load(arguments.run_folder, arguments.device)
    segmenter.tile = chosen_tile(segmenter.network, arguments.tile)
    dataset = open_dataset(arguments.data, arguments.split, seed=arguments.seed)
    task.check(dataset, arguments.data)
    confusions = tracked(segmenter.confusions(dataset), len(dataset), "evaluating")
    counts = sum_confusion(confusions, len(segmenter.classes)).counts
    scores = metrics.scores(counts, arguments.absent)
    labelled = counts.sum(axis=1)
    console.print(scores_table(scores, segmenter.classes, labelled / max(labelled.sum(), 1)))
    constant, trivial = metrics.constant_predictor(labelled, arguments.absent)
    counted = f"{labelled.sum():,} labelled {task.unit}s"
    print(f"\n{len(dataset)} images of {arguments.data}, split {arguments.split}, {counted}")
    print(f"absent classes: {arguments.absent} ({metrics.ABSENT[arguments.absent]})")
    print(f"constant predictor ({segmenter.classes[constant]}) {task.title} {task.score(trivial):.4f}")
    print_scores(scores, task)
    if arguments.json:
        write_json(
            arguments.json,
            scores.as_dict()
            | {
                "task": task.name,
                "classes": list(segmenter.classes),
                "confusion": counts.tolist(),
                "images": len(dataset),
                "data": arguments.data,
                "split": arguments.split,
            },
        )
    if arguments.confusion:
        viz.confusion_picture(arguments.confusion, counts, segmenter.classes)
    return 0
