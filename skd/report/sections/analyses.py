"""`details/analyses.md`: the analyses beside the main comparison, in their order."""

from __future__ import annotations

from skd.report.reading.analyses import Analyses
from skd.report.reading.experiment import ExperimentResults
from skd.report.sections import fairness, scaling, sweeps
from skd.report.sections.probe import agreement, course, drafts
from skd.report.verdicts.evidence import Evidence


def page(analyses: Analyses, results: ExperimentResults, evidence: Evidence) -> str:
    parts = [
        "# Analyses\n\nOn the validation split where nothing else is said; nothing here chose a "
        "setting of the main comparison. Values of fewer than three runs stand one by one.",
        fairness.section(analyses, evidence.budgets, evidence.reference),
        *(sweeps.section(name, sweep, evidence.margin) for name, sweep in analyses.sweeps.items()),
        scaling.section(analyses.students, results),
        agreement(analyses.probe),
        course(results),
        drafts(analyses.probe),
    ]
    return "\n\n".join(part for part in parts if part)
