"""What was found in a run by tests and checks, computed once and shown in several places."""

from __future__ import annotations

from dataclasses import dataclass

from skd.report.reading.run import Run
from skd.report.verdicts.compare import Family, families
from skd.report.verdicts.crosscheck import Check, checks
from skd.report.verdicts.failures import Finding, signatures
from skd.report.verdicts.pairs import Pair, all_pairs


@dataclass(frozen=True)
class Evidence:
    reference: str
    families: dict[str, list[Family]]  # by task or test set: the reference against the others
    pairs: list[Pair]  # all methods against all others
    checks: list[Check]  # the same by sacrebleu
    findings: list[Finding]


def weigh(run: Run, reference: str, *, resamples: int, seed: int) -> Evidence:
    return Evidence(
        reference,
        families(run, reference, resamples=resamples, seed=seed),
        all_pairs(run, resamples=resamples, seed=seed),
        checks(run, reference),
        signatures(run),
    )
