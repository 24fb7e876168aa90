"""Where a run's models stand: the one place that knows the folders' names.

Refuses to know stages, and loads nothing.
"""

from __future__ import annotations

from pathlib import Path

BASE = Path("models/base")
SFT = Path("models/sft")
STUDENTS = Path("models/students")
BEST = Path("models/best")
TEACHER_FOLDER, STUDENT_FOLDER = "teacher", "student"


def teacher(task: str) -> Path:
    """The teacher as it is for a task, fine-tuned on it unless it came so."""
    return SFT / task / TEACHER_FOLDER


def start(task: str, seed: int, init: str = "sft") -> Path:
    """The student as it stands before distillation."""
    if init == "instruct":
        return BASE / STUDENT_FOLDER
    return SFT / task / f"{STUDENT_FOLDER}-{seed}"


def student(method: str, task: str, seed: int) -> Path:
    """What a method made of it."""
    return STUDENTS / method / task / str(seed)
