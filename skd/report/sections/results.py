"""`reports/results.csv`: one row per number of the test splits, nothing averaged."""

from __future__ import annotations

import csv
import io

from skd.report.reading.experiment import ExperimentResults

COLUMNS = ("task", "method", "seed", "split", "metric", "value", "n", "signature")


def results_csv(results: ExperimentResults) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for task in (*results.tasks, *results.test_sets):
        for model in task.models.values():
            for seed, scores in model.by_seed.items():
                for metric, value in scores.items():
                    signature = model.signatures.get(metric, "")
                    writer.writerow(
                        (task.name, model.name, seed, model.split, metric, round(value, 6),
                         model.n, signature)
                    )  # fmt: skip
    return text.getvalue()
