"""Dialogue summarization (paper, section 4: DialogSum); the prompt is the bare dialogue."""

from skd.tasks.base import Task

TASK = Task(
    name="summarization",
    prompt="{source}",
    metrics=("rouge_l", "rouge_1", "rouge_2", "valid", "stopped"),
    primary="rouge_l",
)
