"""Train a small network on generated scenes, score it, and label a picture: the commands, from Python.

    python examples/00_train_evaluate_predict.py [FOLDER]

Takes well under a minute on a laptop; FOLDER (default: a new temporary one) receives the run.
"""

import sys
import tempfile
from pathlib import Path

import minifcn
from minifcn import viz


def main(folder: Path) -> float:
    # `minifcn train --data scenes:64x96 --steps 60 ...`
    config = minifcn.TrainConfig(data="scenes:64x96", steps=60, batch=4, width=0.5)
    run = minifcn.Run.start(folder / "run", config)
    run.train()

    # `minifcn evaluate RUN --data scenes:64x96`
    segmenter = minifcn.Segmenter.load(folder / "run")
    validation = minifcn.open_dataset("scenes:64x96", "val")
    scores = minifcn.scores(segmenter.evaluate(validation).counts)
    print(f"pixel accuracy {scores.pixel_accuracy:.3f}, mean IU {scores.mean_iu:.3f}")

    # `minifcn predict RUN IMAGE`
    image = validation[0].image
    label = segmenter(image)
    viz.save_picture(folder / "overlay.png", viz.overlay(image, label, segmenter.palette))
    print(f"{folder / 'overlay.png'} shows what it sees")
    return scores.mean_iu


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
