"""Assamese to English translation (paper, section 4: Flores as-en)."""

from skd.tasks.base import Task

TASK = Task(
    name="translation",
    prompt="Translate Assamese sentence into English. {source}",
    metrics=("sentence_chrf", "chrf", "bleu", "comet", "valid", "stopped"),
    primary="sentence_chrf",
)
