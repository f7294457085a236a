"""Long work: training and circuit search, with progress bars."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

import numpy as np

from . import _gossamer
from ._gossamer import Bridges, Circuit, Model, Progress

if TYPE_CHECKING:
    from .tasks import Task

PathLike = str | os.PathLike[str]


class Run:
    """A training run: its model, its numbers and where it is."""

    def __init__(self, outcome: Mapping[str, Any]) -> None:
        self.model: Model = outcome["model"]
        """The trained model."""
        self.folder = Path(outcome["folder"])
        """The run's folder, which `load` and `train(resume=…)` take."""
        self.checkpoint = Path(outcome["checkpoint"])
        """The last checkpoint."""
        self.step: int = outcome["step"]
        """Steps done."""
        self.finished: bool = outcome["finished"]
        """Whether all steps were done."""
        self.validation: float | None = outcome["validation"]
        """Loss on held-out data, in nats per token."""
        self.bigram: float | None = outcome["bigram"]
        """Loss of a smoothed bigram model on the same data."""

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """What was logged, by name: arrays of equal length, `nan` where a step has no such number."""
        return read_metrics(self.folder)

    def __repr__(self) -> str:
        validation = "" if self.validation is None else f", validation {self.validation:.3f}"
        return f"<Run {self.folder}, step {self.step}{validation}>"


class BridgeRun(Run):
    """A training run of bridges."""

    def __init__(self, outcome: Mapping[str, Any], device: str) -> None:
        super().__init__(outcome)
        self.bridges = Bridges(self.folder, device=device)
        """The bridges."""

    def evaluate(self, **options: Any) -> dict[str, Any]:
        """How well the bridges do: `Bridges.evaluate`."""
        return self.bridges.evaluate(**options)

    def steer(self, prompt: str | None = None, **options: Any) -> list[dict[str, Any]]:
        """Steers the dense model: `Bridges.steer`."""
        return self.bridges.steer(prompt, **options)


def read_metrics(folder: PathLike) -> dict[str, np.ndarray]:
    lines = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    # One that is still being written has no end.
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: np.array([row.get(name) for row in rows], dtype=float) for name in names}
    if "step" in columns:
        columns["step"] = columns["step"].astype(np.int64)
    return columns


def train(
    preset: str = "quickstart",
    data: PathLike | Sequence[PathLike] | None = None,
    *,
    steps: int | None = None,
    tokens: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] | None = None,
    config: PathLike | None = None,
    tokenizer: PathLike | None = None,
    out: PathLike | None = None,
    init: Model | PathLike | None = None,
    resume: PathLike | None = None,
    device: str | None = None,
    seed: int | None = None,
    on_step: Callable[[Progress], Any] | None = None,
    progress: bool = True,
) -> Run:
    """Trains a model, with the same bits as the command `train` with these arguments.

    `data` names files and folders to train on; without it, Python is generated. `settings` replaces
    settings of the preset: `{"train.lr": 0.02, "d_model": 64}`. The run is in the folder `out`, by
    default `runs/PRESET`, numbered if taken. It starts from the model `init`, a `Model` or what
    `load` takes, or from random weights. `resume` continues the run in a folder; with `steps` or
    `tokens`, a new run continues it to that many. `on_step` is called after every logged step; what
    it raises ends the run. Ctrl-C ends it too: what was done is saved, and can be resumed.
    """
    request = _request(preset, data, steps, tokens, settings, config, tokenizer, out, device, seed)
    request |= {"init": None if init is None else _name(init), "resume": resume}
    with _Bar("training", on_step, progress) as bar:
        return Run(_gossamer.train(request, bar))


def train_bridges(
    dense: Model | PathLike,
    sparse: Model | PathLike | None = None,
    preset: str = "quickstart",
    data: PathLike | Sequence[PathLike] | None = None,
    *,
    steps: int | None = None,
    tokens: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] | None = None,
    config: PathLike | None = None,
    tokenizer: PathLike | None = None,
    out: PathLike | None = None,
    device: str | None = None,
    seed: int | None = None,
    on_step: Callable[[Progress], Any] | None = None,
    progress: bool = True,
) -> BridgeRun:
    """Trains a sparse model together with bridges to a dense one, which stays unchanged.

    `dense` and `sparse` are models that were opened, or what `load` takes; without `sparse`, a new
    sparse model is trained. The other arguments are those of `train`.
    """
    request = _request(preset, data, steps, tokens, settings, config, tokenizer, out, device, seed)
    with _Bar("training", on_step, progress) as bar:
        names = _name(dense), None if sparse is None else _name(sparse)
        return BridgeRun(_gossamer.train_bridges(*names, request, bar), device or "auto")


def find_circuit(model: Model, task: str | Task, target_loss: float | None = None, **options: Any) -> Circuit:
    """Searches for the smallest circuit that does a task with at most `target_loss`.

    The loss is the mean of minus log softmax over the two answers, in nats, with a scale fitted on the
    train pairs; 0.15 by default. The options are those of `find_circuits`, but for `count`.
    """
    return find_circuits(model, task, target_loss, count=1, **options)[0]


def find_circuits(
    model: Model,
    task: str | Task,
    target_loss: float | None = None,
    *,
    count: int = 1,
    settings: Mapping[str, Any] | Sequence[str] | None = None,
    tune: int = 0,
    tune_minutes: float = 0.0,
    exclude: Sequence[str | Mapping[str, Any]] = (),
    ranking: str = "learned",
    clean_up: bool = True,
    prune_edges: bool = False,
    data: PathLike | Sequence[PathLike] | None = None,
    mean_tokens: int = 65_536,
    out: PathLike | None = None,
    progress: bool = True,
) -> list[Circuit]:
    """Searches for up to `count` circuits of a task, each without the nodes of those before.

    `settings` replaces settings of the search, such as `{"steps": 500}`. `tune` tries that many
    random settings, `tune_minutes` as many as there is time for, and the smallest circuit is kept; all
    are listed in `TASK.trials.csv`. No circuit has a node in `exclude`. `ranking` is "learned",
    "attribution" or "integrated-gradients". With `prune_edges`, edges that the loss does not need carry
    constants. Nodes outside of a circuit are at their mean over `mean_tokens` tokens of the files in
    `data`, or of generated Python. The files are written into the folder `out`, if there is one.
    """
    with tempfile.TemporaryDirectory() as temporary, _Bar("searching", None, progress) as bar:
        folder = temporary if out is None else out
        return _gossamer.find_circuits(
            model,
            task,
            folder,
            target_loss,
            _assignments(settings),
            tune,
            tune_minutes,
            count,
            list(exclude),
            ranking,
            clean_up,
            prune_edges,
            _paths(data),
            mean_tokens,
            bar,
        )


def _request(
    preset: str,
    data: PathLike | Sequence[PathLike] | None,
    steps: int | None,
    tokens: int | None,
    settings: Mapping[str, Any] | Sequence[str] | None,
    config: PathLike | None,
    tokenizer: PathLike | None,
    out: PathLike | None,
    device: str | None,
    seed: int | None,
) -> dict[str, Any]:
    return {
        "preset": preset,
        "config": config,
        "settings": _assignments(settings),
        "data": _paths(data),
        "tokenizer": tokenizer,
        "out": out,
        "init": None,
        "resume": None,
        "steps": steps,
        "tokens": tokens,
        "device": device,
        "seed": seed,
    }


def _name(model: Model | PathLike) -> str:
    if isinstance(model, Model):
        if not model.path:
            raise ValueError("this model is nowhere on the disk: save it and open it from there")
        return model.path
    return os.fspath(model)


def _paths(data: PathLike | Sequence[PathLike] | None) -> list[PathLike]:
    if data is None:
        return []
    return [data] if isinstance(data, (str, os.PathLike)) else list(data)


def _assignments(settings: Mapping[str, Any] | Sequence[str] | None) -> list[str]:
    if settings is None:
        return []
    if isinstance(settings, str):
        return [settings]
    if isinstance(settings, Mapping):
        return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
    return list(settings)


class _Bar:
    """A progress bar, which receives the messages of long work."""

    def __init__(self, name: str, on_step: Callable[[Progress], Any] | None, visible: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(desc=name, disable=not visible, leave=False, dynamic_ncols=True)
        self.on_step = on_step

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, kind: str, *message: Any) -> None:
        getattr(self, f"_{kind}")(*message)

    def _note(self, text: str) -> None:
        self.bar.set_postfix_str(text)

    def _stage(self, name: str, done: int, total: int | None, unit: str) -> None:
        self._at(done, total, unit)
        self.bar.set_description_str(name)

    def _step(self, progress: Progress) -> None:
        self._at(progress.step, progress.steps, "steps")
        validation = "" if progress.validation is None else f", validation {progress.validation:.3f}"
        self.bar.set_description_str("training", refresh=False)
        self.bar.set_postfix_str(f"loss {progress.loss:.3f}{validation}, {progress.nonzeros:,} nonzeros")
        if self.on_step is not None:
            self.on_step(progress)

    def _at(self, done: int, total: int | None, unit: str) -> None:
        self.bar.total, self.bar.n, self.bar.unit = total, done, f" {unit}"
