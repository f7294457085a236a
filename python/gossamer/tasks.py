"""Tasks: pairs of prompts that a model continues with one token each.

>>> gs.tasks.names()
>>> gs.tasks.evaluate(model, "single_double_quote")
>>> gs.tasks.Task(pairs=[("x = 'a", 'x = "a', "'", '"')] * 5)
"""

from ._gossamer import Task, evaluate_on_task as evaluate, task_names as names

__all__ = ["Task", "evaluate", "names"]
