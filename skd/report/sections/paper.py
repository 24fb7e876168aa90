"""Figures that the paper reports (arXiv 2410.11325, Table 1), on other models and data.

Quoted from secondary notes; printed beside this run's numbers for orientation, never used in
a computation. Translation is COMET, summarization ROUGE-L, arithmetic GSM8K accuracy.
"""

from __future__ import annotations

METRICS = {"translation": "COMET", "summarization": "ROUGE-L", "arithmetic": "accuracy"}
PAIRS = ("Gemma 7B→2B", "Qwen2 7B→0.5B")

# algorithm -> task -> one figure per pair
REPORTED: dict[str, dict[str, tuple[float, float]]] = {
    "sft": {
        "translation": (72.5, 57.6),
        "summarization": (31.7, 29.2),
        "arithmetic": (18.7, 31.8),
    },
    "supervised_kd": {
        "translation": (73.3, 57.5),
        "summarization": (34.1, 31.3),
        "arithmetic": (22.5, 35.0),
    },
    "on_policy_kd": {
        "translation": (36.1, 53.0),
        "summarization": (34.1, 31.2),
        "arithmetic": (25.3, 33.9),
    },
    "imit_kd": {
        "translation": (74.8, 55.9),
        "summarization": (34.9, 30.9),
        "arithmetic": (26.2, 33.2),
    },
    "skd": {
        "translation": (75.3, 57.1),
        "summarization": (35.0, 31.7),
        "arithmetic": (29.1, 36.6),
    },
}
