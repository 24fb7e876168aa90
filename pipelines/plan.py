"""What an experiment will take, before anything is downloaded or trained.

Reads the parameters of a profile, or params.yaml, and the configurations of its models: a folder's,
the Hub's (its cache first), or profiles/shapes/ID.json. Prints

  each stage's runs, prompts, tokens, memory and time, and whether it fits the device;
  the parts of that memory: weights, optimiser, gradients, activations, caches, kept states, logits;
  the disk that it fills; and, where it does not fit, the settings that would make it fit, the
  cheapest first.

Lengths of rows are those of data/TASK where the stage `prepare` has made it, else the budget's,
which no row exceeds. Time comes from a second of work on this device. Status 2: it does not fit.
The stage `base` asks the same before it begins; `runtime.plan: false` lets it begin anyway.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

from pipelines.planning.advice import advise
from pipelines.planning.configurations import sizes_of
from pipelines.planning.devices import Device, device_of
from pipelines.planning.hours import calibrate
from pipelines.planning.lengths import HEALING, healing_lengths, task_lengths
from pipelines.planning.memory import FULL
from pipelines.planning.plan import Plan, make_plan
from pipelines.planning.sizes import Sizes
from pipelines.planning.table import advice_text, models_text, plan_text
from pipelines.planning.work import Models
from pipelines.profile import compose
from pipelines.runs.machine import pick_device
from pipelines.runs.pruning import healed
from pipelines.schema import Params, load, parse
from pipelines.stages.command import run_command
from pipelines.yaml_text import parse_yaml

EXAMPLES = """\
  python -m pipelines.plan                              params.yaml, on this machine
  python -m pipelines.plan smollm2                      another profile
  python -m pipelines.plan paper-gemma --device cuda --memory 80
                                                        on a device that is not here; untimed
"""


def main(argv: list[str] | None = None) -> None:
    arguments = _arguments(argv)
    params = load() if arguments.profile is None else _profile(arguments.profile)
    asked = {"teacher": params.models.teacher, "student": params.models.student}
    asked |= {name: params.scaling.students[name] for name in params.experiment.students}
    found = {name: sizes_of(settings, params.models) for name, settings in asked.items()}
    for line in models_text(found):
        print(line)
    known = {name: size for name, size in found.items() if isinstance(size, Sizes)}
    if len(known) < len(found):
        print("the plan needs these configurations: name folders, reach the Hub, or write them to")
        print("profiles/shapes/ID.json (docs/profiles.md); memory and time cannot be told without")
        return
    teacher, student = known.pop("teacher"), known.pop("student")
    if not report(params, Models(teacher, student, known), arguments):
        sys.exit(2)


def report(params: Params, models: Models, arguments: argparse.Namespace) -> bool:
    """Print the plan; gives whether it fits."""
    weights = FULL * (models.teacher.parameters + models.student.parameters)
    chosen = pick_device(params.runtime, weights)
    device = _device(chosen, arguments)
    lengths = {
        task: task_lengths(task, params.data[task], params.budget[task], params.models)
        for task in params.experiment.tasks
    }
    healing = {}
    if healed(params.models.student) is not None:
        tasks = params.experiment.tasks
        healing = {HEALING: healing_lengths(tasks, params.data, params.models)}
    here = arguments.device is None and not arguments.check
    speed = calibrate(chosen) if here else None

    def planned(changed: Params) -> Plan:
        own = {task: replace(known, budget=changed.budget[task]) for task, known in lengths.items()}
        return make_plan(changed, models, own | healing, device, speed)

    plan = planned(params)
    if not (arguments.check and plan.fits):
        print("\n".join(plan_text(plan)))
    if plan.over:
        workers = max(stage.side_by_side for stage in plan.stages)
        print("\n".join(advice_text(*advise(params, workers, lambda p: planned(p).over))))
    return plan.fits


def _device(chosen: torch.device, arguments: argparse.Namespace) -> Device:
    """This machine's, or the one that is asked about."""
    device = device_of(chosen)
    if arguments.device is not None:
        process = 2**30 if arguments.device == "cuda" else device.process
        device = replace(device, kind=arguments.device, name="as asked", process=process)
    if arguments.memory is not None:
        device = replace(device, memory=round(arguments.memory * 2**30))
    return device


def _profile(name: str) -> Params:
    return parse(parse_yaml(compose(name), name), name)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.plan",
        description=__doc__,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", nargs="?", help="of profiles/; none: params.yaml as it stands")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="plan for it, not for this one")
    parser.add_argument("--memory", type=float, metavar="GIB", help="that the device has")
    parser.add_argument("--check", action="store_true", help="print only what does not fit")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
