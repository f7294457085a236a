"""Weight-sparse transformers: open and train them, look inside, find circuits, steer.

>>> import gossamer as gs
>>> model = gs.load("runs/quickstart")
>>> logits, cache = model.run_with_cache("x = 1", sites="mlp.post_act")
"""

import os

# Mesa's Vulkan layer for device selection asks a desktop, and prints errors where there is none.
if not any(name in os.environ for name in ("XDG_RUNTIME_DIR", "NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT")):
    os.environ["NODEVICE_SELECT"] = "1"

from . import tasks
from ._gossamer import (
    Activations,
    Bridges,
    Circuit,
    Config,
    Error,
    Gradients,
    Model,
    Progress,
    Tokenizer,
    convert,
    example,
    from_state_dict,
    load,
    new_model,
)
from ._work import BridgeRun, Run, find_circuit, find_circuits, train, train_bridges

__all__ = [
    "Activations",
    "BridgeRun",
    "Bridges",
    "Circuit",
    "Config",
    "Error",
    "Gradients",
    "Model",
    "Progress",
    "Run",
    "Tokenizer",
    "convert",
    "example",
    "find_circuit",
    "find_circuits",
    "from_state_dict",
    "load",
    "new_model",
    "tasks",
    "train",
    "train_bridges",
]
