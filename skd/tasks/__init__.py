"""The table of tasks. A new task is one file and one row; its metrics are names only."""

from skd.tasks import arithmetic, summarization, translation
from skd.tasks.base import Task, render

TASKS: dict[str, Task] = {
    task.name: task for task in (translation.TASK, summarization.TASK, arithmetic.TASK)
}

__all__ = ["TASKS", "Task", "render"]
