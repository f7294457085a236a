"""The library's part of the package, in Rust."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
PathLike: TypeAlias = str | os.PathLike[str]
Ids: TypeAlias = Sequence[SupportsIndex] | npt.ArrayLike
Prompt: TypeAlias = str | Ids
Prompts: TypeAlias = Prompt | Sequence[Prompt]
Hook: TypeAlias = Callable[[Floats, str], npt.ArrayLike | None]
Hooks: TypeAlias = Mapping[str, Hook] | Sequence[tuple[str, Hook]]
Metric: TypeAlias = str | tuple[str, Any, Any]
Means: TypeAlias = PathLike | dict[str, npt.ArrayLike]

class Error(Exception):
    """A failure that no exception of Python's own describes: a device, a damaged file, a model of the Hub."""

class Config:
    """A model's shapes and variants: `config.d_model`, `config["d_model"]`, `dict(config)`."""

    def __getattr__(self, name: str) -> Any: ...
    def __getitem__(self, name: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: object) -> bool: ...
    def keys(self) -> list[str]: ...

class Tokenizer:
    """Text to tokens and back."""

    @staticmethod
    def load(path: PathLike) -> Tokenizer: ...
    def save(self, path: PathLike) -> None: ...
    def encode(self, text: str, *, special: bool = False) -> list[int]: ...
    def decode(self, ids: Ids) -> str: ...
    def to_str_tokens(self, ids: Ids) -> list[str]: ...
    def token(self, id: int) -> str: ...
    def single_token(self, text: str) -> int | None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def end_of_text(self) -> int | None: ...
    def __len__(self) -> int: ...

class Activations:
    """Arrays (B, T, width) of float32 by the names of sites."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The length of each prompt, (B)."""

    def __getitem__(self, name: str | tuple[str, int]) -> Floats: ...
    def __contains__(self, name: str | tuple[str, int]) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def keys(self) -> list[str]: ...
    def values(self) -> list[Floats]: ...
    def items(self) -> list[tuple[str, Floats]]: ...
    def get(self, name: str | tuple[str, int], default: Any = None) -> Any: ...

class Gradients:
    """A metric and its derivatives: `value, gradients = …`, `result["0.mlp.post_act"]`."""

    value: float
    gradients: Activations
    cache: Activations

    def __getitem__(self, name: str | tuple[str, int]) -> Floats: ...
    def __iter__(self) -> Iterator[Any]: ...

class Model:
    """A model and its tokenizer."""

    def run_with_cache(
        self,
        prompts: Prompts,
        sites: str | Sequence[str] | None = None,
        *,
        edits: str | Sequence[str] | None = None,
        hooks: Hooks | None = None,
        patch_from: Prompt | None = None,
        means: Means | None = None,
    ) -> tuple[Floats, Activations]:
        """Logits (B, T, vocab_size), and the activations at `sites`."""

    def run(
        self,
        prompts: Prompts,
        *,
        edits: str | Sequence[str] | None = None,
        patch_from: Prompt | None = None,
        means: Means | None = None,
    ) -> Floats:
        """Logits (B, T, vocab_size), after edits as the command line writes them."""

    def run_with_hooks(self, prompts: Prompts, hooks: Hooks) -> Floats:
        """Logits (B, T, vocab_size) of a forward pass in which functions `f(array, site)` change activations."""

    def gradients(
        self,
        prompts: Prompts,
        metric: Metric | None = None,
        sites: str | Sequence[str] | None = None,
        *,
        edits: str | Sequence[str] | None = None,
        hooks: Hooks | None = None,
        patch_from: Prompt | None = None,
        means: Means | None = None,
    ) -> Gradients:
        """A metric, "loss" or ("logit_diff", correct, incorrect), and its gradients at sites."""

    def loss(
        self,
        prompts: Prompts,
        *,
        edits: str | Sequence[str] | None = None,
        hooks: Hooks | None = None,
        patch_from: Prompt | None = None,
        means: Means | None = None,
    ) -> float:
        """Mean cross-entropy in nats of all tokens but each prompt's first."""

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        special: bool = False,
        stop_at_end: bool = True,
    ) -> Any:
        """The prompt and its continuation: a text for a text, otherwise ids (T)."""

    def attention(self, prompts: Prompts, layer: int) -> Floats:
        """Attention patterns (B, n_head, T, T)."""

    def next_tokens(
        self,
        prompt: Prompt,
        top: int = 10,
        *,
        edits: str | Sequence[str] | None = None,
        hooks: Hooks | None = None,
        patch_from: Prompt | None = None,
        means: Means | None = None,
    ) -> list[dict[str, Any]]:
        """The most probable next tokens: dicts with `token`, `text` and `probability`."""

    def evaluate(
        self, data: Sequence[PathLike] = (), *, max_tokens: int = 16_384, batch_size: int = 8
    ) -> dict[str, Any]:
        """The loss on files of text, in nats per token, and the kurtosis of `final_resid`."""

    def to_str_tokens(self, prompt: Prompt) -> list[str]: ...
    def state_dict(self) -> dict[str, Floats]: ...
    def to_torch_state_dict(self) -> dict[str, Any]: ...
    def save(self, path: PathLike) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def sites(self) -> dict[str, int]: ...
    @property
    def device(self) -> str: ...
    @property
    def hash(self) -> str: ...

class Task:
    """Pairs of prompts that a model continues with one token each."""

    def __init__(
        self,
        pairs: Sequence[Mapping[str, str] | tuple[str, str, str, str]],
        test: Sequence[Mapping[str, str] | tuple[str, str, str, str]] | None = None,
        *,
        name: str = "task",
    ) -> None: ...
    @staticmethod
    def open(name: str) -> Task: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def version(self) -> int: ...
    def pairs(
        self, count: int = 8, *, split: str = "train", seed: int = 0, model: Model | None = None
    ) -> list[dict[str, Any]]:
        """Pairs as dicts of texts; with a model also as ids, in the form that it is evaluated on."""


class Circuit:
    """The part of a model that does one task."""

    @staticmethod
    def load(path: PathLike, *, task: str | Task | None = None) -> Circuit: ...
    def save(self, path: PathLike) -> None: ...
    @property
    def nodes(self) -> list[dict[str, Any]]: ...
    @property
    def edges(self) -> list[dict[str, Any]]: ...
    @property
    def losses(self) -> dict[str, dict[str, Any]]: ...
    @property
    def calibration(self) -> dict[str, float]: ...
    @property
    def task(self) -> str: ...
    @property
    def model_hash(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    def without(self, nodes: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> Circuit: ...
    def with_nodes(self, nodes: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> Circuit: ...
    def check(
        self,
        model: Model,
        *,
        ablation: str = "mean",
        calibration: str = "scale",
        task: str | Task | None = None,
        pairs: int | None = None,
        controls: int = 10,
        parts: bool = True,
        seed: int = 0,
        means: Means | None = None,
    ) -> dict[str, Any]: ...
    def evaluate(
        self,
        model: Model,
        *,
        ablation: str = "mean",
        calibration: str = "scale",
        task: str | Task | None = None,
        pairs: int | None = None,
        means: Means | None = None,
    ) -> dict[str, dict[str, Any]]: ...
    def describe(self, model: Model) -> Circuit: ...
    def means(self, model: Model) -> dict[str, Floats]: ...
    def to_svg(self, threshold: float | None = None) -> str: ...
    def to_html(self, model: Model | None = None, threshold: float | None = None) -> str: ...
    def to_dot(self, threshold: float | None = None) -> str: ...
    def __len__(self) -> int: ...
    def __contains__(self, node: str) -> bool: ...

class Progress:
    """Where a training run stands, after a step that was logged."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def validation(self) -> float | None: ...
    @property
    def lr(self) -> float: ...
    @property
    def grad_rms(self) -> float: ...
    @property
    def density(self) -> float: ...
    @property
    def nonzeros(self) -> int: ...
    @property
    def tokens_per_second(self) -> float: ...
    @property
    def seconds_left(self) -> float: ...

class Bridges:
    """Bridges between a dense and a sparse model."""

    def __init__(
        self, path: PathLike, *, dense: str | None = None, device: str = "auto", offline: bool = False
    ) -> None: ...
    @property
    def path(self) -> str: ...
    def evaluate(
        self, *, data: Sequence[PathLike] = (), max_tokens: int = 16_384, batch_size: int = 8
    ) -> dict[str, Any]: ...
    def steer(
        self,
        prompt: str | None = None,
        *,
        counterfactual: str | None = None,
        nodes: str | Sequence[str] | None = None,
        edits: str | Sequence[str] | None = None,
        task: str | None = None,
        circuit: PathLike | None = None,
        strengths: Sequence[float] | None = None,
        pairs: int = 64,
        reverse: bool = False,
        random: int = 8,
        seed: int = 0,
        ratio: str = "sparse_over_dense",
        top: int = 5,
        data: Sequence[PathLike] = (),
        max_tokens: int = 16_384,
    ) -> list[dict[str, Any]]: ...

def load(
    spec: PathLike,
    *,
    device: str = "auto",
    offline: bool = False,
    tokenizer: PathLike | None = None,
    sparse: bool = True,
) -> Model: ...
def new_model(config: Mapping[str, Any] | Config, *, seed: int = 0, device: str = "auto") -> Model: ...
def from_state_dict(
    config: Mapping[str, Any] | Config,
    state_dict: Mapping[str, npt.ArrayLike],
    *,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
) -> Model: ...
def convert(
    source: PathLike,
    destination: PathLike,
    *,
    to: str = "all",
    float: str | None = None,
    force: bool = False,
    offline: bool = False,
) -> None: ...
def evaluate_on_task(
    model: Model, task: str | Task, *, pairs: int = 512, seed: int = 0
) -> dict[str, Any]: ...
def example(folder: PathLike | None = None) -> Path: ...
def task_names() -> list[str]: ...
def train(request: dict[str, Any], on_message: Callable[..., None]) -> dict[str, Any]: ...
def train_bridges(
    dense: str, sparse: str | None, request: dict[str, Any], on_message: Callable[..., None]
) -> dict[str, Any]: ...
def find_circuits(
    model: Model,
    task: str | Task,
    folder: PathLike,
    target_loss: float | None,
    settings: Sequence[str],
    tune: int,
    tune_minutes: float,
    disjoint: int,
    exclude: Sequence[str | Mapping[str, Any]],
    ranking: str,
    clean_up: bool,
    prune_edges: bool,
    data: Sequence[PathLike],
    mean_tokens: int,
    on_message: Callable[..., None],
) -> list[Circuit]: ...
def run_train(args: Sequence[str]) -> int: ...
def run_gossamer(args: Sequence[str], programs: PathLike) -> int: ...
