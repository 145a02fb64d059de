"""Training: from a configuration to a run's folder that can be watched, stopped, resumed and used.

A run is a pure function of its configuration: the order of the images, their augmentation, the dropout masks and the
initial weights are drawn from counters (seed, epoch, position, step), never from a generator that has a past. So a
checkpoint needs no random state, and a run that was stopped anywhere continues bit for bit.

    DIR/config.toml         every setting               DIR/samples/epoch-001.png   image, label, prediction
    DIR/log.jsonl           one line a step             DIR/last.safetensors        weights and all state
    DIR/metrics.csv         one line an epoch           DIR/best.safetensors        weights of the best score
    DIR/curves.png          both, drawn
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from . import checkpoint, metrics, models, optim, viz
from .checkpoint import Checkpoint
from .configuration import TrainConfig
from .data import Augment, Batch, Dataset, Loader, Normalization, open_dataset
from .device import get_device
from .errors import CheckpointError, FileWriteError, TrainingError
from .files import write_text
from .kernels import memory
from .kernels.settings import settings
from .metrics import Scores
from .segmenter import sum_confusion
from .stepgraph import StepGraph
from .tasks import TASKS
from .tensor import Tensor
from .transfer import Inheritance, inherit, sizes

SAMPLES = 4  # validation images drawn after every epoch


@dataclass
class Standing:
    """Where a run stands: what a checkpoint must hold besides weights and optimiser state."""

    step: int = 0  # optimiser steps done
    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done of the epoch that is under way
    losses: list[float] = field(default_factory=list)  # one a step of that epoch
    best_score: float | None = None
    best_epoch: int | None = None
    new_layers: list[str] | None = None  # those that `init` had no weights for; None without it


class Observer:
    """Told of what happens; the command line shows it. All methods may be left out."""

    def started(self, run: Run) -> None: ...

    def stepped(self, run: Run, loss: float, lr: float) -> None: ...

    def evaluating(self, run: Run, done: int, total: int) -> None: ...

    def evaluated(self, run: Run, row: dict[str, Any], scores: Scores) -> None: ...

    def saved(self, run: Run, path: Path) -> None: ...


class Run:
    """One training run in its folder.

    `Run.start` and `Run.resume` make one, `train` carries it on. Everything is public: config, network, optimizer,
    standing, rows (of metrics.csv), total_steps, task, predictor.
    """

    def __init__(self, folder: str | Path, config: TrainConfig, observer: Observer | None = None) -> None:
        folder = Path(folder)
        self.folder, self.config, self.observer = folder, config, observer or Observer()
        self.device, self.task = get_device(config.device), TASKS[config.task]
        with self._chosen_settings():
            settings.refuse_others(config.device)
        self.train_set = open_dataset(config.data, "train", seed=config.seed)
        self.val_set = open_dataset(config.data, "val", seed=config.seed)
        self.task.check(self.train_set, config.data)
        classes = len(self.train_set.classes)
        if config.class_weights is not None and len(config.class_weights) != classes:
            raise TrainingError(f"class_weights has {len(config.class_weights)} numbers for {classes} classes")
        self.settings = self.task.network_settings(config, self.train_set)
        self.network = models.build(**self.settings, seed=config.seed, dtype=config.dtype).to(self.device)
        parameters = dict(self.network.named_parameters())
        self.optimizer = optim.build(config.optimizer, parameters, config.momentum, config.weight_decay)
        self.standing, self.rows = Standing(), []
        self.inheritance: Inheritance | None = None  # what a run that starts took over from `init`
        self.true_counts: np.ndarray | None = None  # pixels of each class in the validation images
        self.class_weights = None if config.class_weights is None else np.array(config.class_weights, config.dtype)
        if config.graph and self.network.unlaunched:
            raise TrainingError(
                f"graph (=True) is not for {config.model} over {config.backbone}, which {self.network.unlaunched}: "
                "leave it out"
            )
        self.replays = config.replays_steps and not self.network.unlaunched
        self.step_graph: StepGraph | None = None  # of steps over full batches of the shape that came first
        self._first_shape: set[tuple[int, ...]] | None = None

    # --- making one ---

    @classmethod
    def start(cls, folder: str | Path, config: TrainConfig, observer: Observer | None = None) -> Run:
        """A new run in `folder`, which must not hold one. Saves step 0."""
        folder = Path(folder)
        if (folder / "last.safetensors").exists():
            raise TrainingError(f"{folder} already holds a run: add --resume to continue it, or name another --run")
        if config.init is None:
            run = cls(folder, config, observer)
            normalization = run._normalization()
        else:
            path = checkpoint.find(config.init)
            saved = checkpoint.load(path)
            config = replace(config, **sizes(saved, fc=config.fc, input_size=config.input_size))
            run = cls(folder, config, observer)
            wanted = (config.mean, config.std, config.inputs, config.filler)
            run.inheritance = inherit(run.network, saved, path, *wanted)
            run.standing.new_layers, normalization = run.inheritance.new_layers, run.inheritance.normalization
        run._prepare(normalization)
        try:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(f"cannot make {folder}: {error.strerror}") from error
        write_text(folder / "config.toml", config.to_toml())
        write_text(folder / "log.jsonl", "")
        run.save()
        return run

    @classmethod
    def resume(cls, folder: str | Path, observer: Observer | None = None) -> Run:
        """The run in `folder` as its last checkpoint left it; what was logged after that is dropped."""
        folder = Path(folder)
        run = cls(folder, TrainConfig.from_toml(folder / "config.toml"), observer)
        path = folder / "last.safetensors"
        saved = checkpoint.load(path)
        try:
            run.standing = Standing(**saved.about["training"])
            data, optimizer_steps = saved.about["data"], saved.about["optimizer_steps"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: it does not say where the training stands ({error})") from error
        run.network.load_state_dict(saved.weights)
        run.optimizer.load_state_dict(saved.optimizer, optimizer_steps)
        run._prepare(Normalization(data["mean"], data["std"]))
        run._forget_what_came_after()
        return run

    def _normalization(self) -> Normalization:
        """Mean and contrast as configured, else measured on training images."""
        mean, std = self.config.mean, self.config.std
        if mean is None or std is None:
            measured = Normalization.measure(self.train_set)
            mean, std = mean or measured.mean, std or measured.std
        return Normalization(mean, std)

    def _prepare(self, normalization: Normalization) -> None:
        config = self.config
        self.optimizer.multipliers = optim.multipliers(
            self.optimizer.parameters, config.bias_rule, self.standing.new_layers or (), config.lr_new
        )
        augment = Augment(config.flip, config.scale or (1.0, 1.0), config.crop, config.jitter)
        draws = (config.epoch_images or len(self.train_set)) if config.sampling == "replacement" else None
        self.loader = Loader(
            self.train_set, config.batch, normalization, seed=config.seed, draws=draws, augment=augment
        )
        self.steps_an_epoch = math.ceil(len(self.loader) / config.accumulate)
        self.total_steps = config.steps or config.epochs * self.steps_an_epoch
        self.schedule = optim.Schedule(
            config.lr, self.total_steps, config.schedule, config.power, config.drop_every, config.gamma
        )
        self.predictor = self.task.predictor(
            self.network, normalization, self.train_set.classes, self.train_set.palette
        )

    def _forget_what_came_after(self) -> None:
        """Cut log and metrics back to the checkpoint, which may be older than they are."""
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.standing.step]
        write_text(self.folder / "log.jsonl", "".join(f"{line}\n" for line in kept))
        table = self.folder / "metrics.csv"
        if table.exists():
            rows = csv.DictReader(io.StringIO(table.read_text()))
            numbers = [{key: (int if key in ("epoch", "step") else float)(row[key]) for key in row} for row in rows]
            self.rows = [row for row in numbers if row["step"] <= self.standing.step]

    # --- carrying it on ---

    @property
    def finished(self) -> bool:
        return self.standing.step >= self.total_steps

    def train(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `stop()` says so after a step; saves either way. True when finished.

        Raises TrainingError when the loss is not finite; the last checkpoint is then the last good one.
        """
        with self._chosen_settings(), open(self.folder / "log.jsonl", "a") as log:
            self.observer.started(self)
            memory.release()  # the observer may have used more than the training will
            memory.reset_peak()
            while not self.finished:
                for batches in self._groups(self.standing.epoch, self.standing.batch):
                    self._step(batches, log)
                    if self.finished or stop():
                        break
                    if self.config.save_every and self.standing.step % self.config.save_every == 0:
                        self.save()
                if self.standing.batch >= len(self.loader) or self.finished:
                    self._end_epoch()
                self.save()
                if stop():
                    break
        return self.finished

    def _chosen_settings(self) -> AbstractContextManager:
        return settings.using(convolution=self.config.convolution, precision=self.config.precision)

    def _groups(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        """The batches of each step of an epoch."""
        group: list[Batch] = []
        for number, batch in enumerate(self.loader.epoch(epoch, start), start + 1):
            group.append(batch)
            if len(group) == self.config.accumulate or number == len(self.loader):
                yield group
                group = []

    def _step(self, batches: list[Batch], log: Any) -> None:
        """One step of the optimiser over the mean gradient of `batches`."""
        started, standing, lr = time.perf_counter(), self.standing, self.schedule(self.standing.step)
        losses = (self._replay if self._fits_graph(batches) else self._launch)(batches, lr)
        standing.step += 1
        standing.batch += len(batches)
        standing.losses.append(sum(losses) / len(losses))
        line = {
            "step": standing.step,
            "epoch": standing.epoch + 1,
            "loss": standing.losses[-1],
            "lr": lr,
            "seconds": round(time.perf_counter() - started, 4),
            "peak_mib": round(memory.usage().peak / 2**20, 1),
        }
        try:
            log.write(json.dumps(line) + "\n")
            log.flush()
        except OSError as error:
            raise FileWriteError(f"cannot write {self.folder / 'log.jsonl'}: {error.strerror}") from error
        self.observer.stepped(self, standing.losses[-1], lr)

    def _fits_graph(self, batches: list[Batch]) -> bool:
        """Whether a step over `batches` is one of the graph's: full ones, of the shape that came first."""
        config, shapes = self.config, {batch.images.shape for batch in batches}
        full = len(batches) == config.accumulate and all(shape[0] == config.batch for shape in shapes)
        if not self.replays or not full or len(shapes) != 1:
            return False
        self._first_shape = self._first_shape or shapes
        return shapes == self._first_shape

    def _replay(self, batches: list[Batch], lr: float) -> list[float]:
        """The losses of `batches`, in a step as one graph."""
        config = self.config
        if self.step_graph is None:
            loss = partial(self.task.loss, self.network)
            rule = (self.class_weights, config.reduction, config.seed)
            self.step_graph = StepGraph(self.network, self.optimizer, loss, *rule)
        inputs = [self.step_graph.inputs(batch.images, batch.labels) for batch in batches]
        losses = [self.device.to_host(loss).item() for loss in self.step_graph(inputs, self.standing.step, lr)]
        for loss, batch in zip(losses, batches, strict=True):
            self._expect_finite(loss, batch)
        return losses

    def _launch(self, batches: list[Batch], lr: float) -> list[float]:
        """The losses of `batches`, in a step kernel by kernel."""
        standing, config = self.standing, self.config
        self._lend_memory()
        self.network.train()
        self.network.zero_grad()
        losses = []
        for i, batch in enumerate(batches):
            self.network.at_step(config.seed, standing.step * config.accumulate + i)
            images = Tensor(batch.images.astype(config.dtype, copy=False), device=self.device)
            loss = self.task.loss(self.network, images, batch.labels, self.class_weights, config.reduction)
            losses.append(loss.item())
            self._expect_finite(losses[-1], batch)
            loss.backward(np.asarray(1 / len(batches), loss.dtype))
            del images, loss  # and with them the batch's graph, before the next one's is built
        if config.clip_norm is not None:  # a limit on the sum, as in Caffe, is one on the mean by their number
            optim.clip_gradients(self.network.parameters(), config.clip_norm / len(batches))
        self.optimizer.step(lr)
        return losses

    def _lend_memory(self) -> None:
        """On the CPU, what is not replayed works in the graph's memory: to capture it again takes some milliseconds."""
        if self.step_graph is not None and self.device.name == "cpu":
            self.step_graph.release()

    def _expect_finite(self, loss: float, batch: Batch) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {self.standing.step + 1} (epoch {self.standing.epoch + 1}, images "
                f"{', '.join(batch.names)}); {self.folder / 'last.safetensors'} keeps the last good weights. "
                f"A lower --lr is the usual cure"
            )

    def _end_epoch(self) -> None:
        """Evaluate, draw, and note the epoch; keep the weights if they are the best."""
        standing = self.standing
        loss = float(np.mean(standing.losses))
        standing.epoch, standing.batch, standing.losses = standing.epoch + 1, 0, []
        if standing.epoch % self.config.evaluate_every and not self.finished:
            return
        self._lend_memory()
        with self.network.frozen():
            confusions = self.predictor.confusions(self.val_set)
            counts = sum_confusion(self._counted(confusions), len(self.val_set.classes)).counts
            samples = self._sample_sheet()
        self.predictor.release()
        scores = metrics.scores(counts, self.config.absent)
        row = {
            "epoch": standing.epoch,
            "step": standing.step,
            "loss": loss,
            "lr": self.schedule(standing.step - 1),
        } | self.task.row(scores)
        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(row))
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / "metrics.csv", table.getvalue())
        viz.curves(self.folder / "curves.png", self.rows)
        viz.save_picture(self.folder / "samples" / f"epoch-{standing.epoch:03d}.png", samples)
        self.true_counts = counts.sum(axis=1)
        # NaN, where nothing is labelled, is not better than anything
        score = self.task.score(scores)
        if score > (-math.inf if standing.best_score is None else standing.best_score):
            standing.best_score, standing.best_epoch = float(score), standing.epoch
            self._checkpoint(with_optimizer=False).save(self.folder / "best.safetensors")
        self.observer.evaluated(self, row, scores)

    def _counted(self, confusions: Iterator[Any]) -> Iterator[Any]:
        for done, confusion in enumerate(confusions, 1):
            self.observer.evaluating(self, done, len(self.val_set))
            yield confusion

    def _sample_sheet(self) -> Image:
        """A picture of a few validation images, always the same ones, and what is predicted for them."""
        indices = np.unique(np.linspace(0, len(self.val_set) - 1, SAMPLES).astype(int)).tolist()
        samples = [self.val_set[index] for index in indices]
        return self.task.sheet(samples, [self.predictor(sample.image) for sample in samples], self.val_set)

    # --- keeping it ---

    def _checkpoint(self, with_optimizer: bool = True) -> Checkpoint:
        about = {
            "network": self.settings,
            "data": describe(self.train_set, self.predictor.normalization),
            "training": asdict(self.standing),
            "optimizer_steps": self.optimizer.steps,
        }
        state = self.optimizer.state_dict() if with_optimizer else {}
        return Checkpoint(self.network.state_dict(), about, state)

    def save(self) -> None:
        """Write DIR/last.safetensors, whole or not at all."""
        path = self.folder / "last.safetensors"
        self._checkpoint().save(path)
        self.observer.saved(self, path)


def describe(dataset: Dataset, normalization: Normalization) -> dict[str, Any]:
    """What a checkpoint must know of its data: class names, colours, mean and contrast."""
    return {
        "classes": list(dataset.classes),
        "palette": np.asarray(dataset.palette).tolist(),
        "mean": normalization.mean,
        "std": normalization.std,
    }
