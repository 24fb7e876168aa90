"""The engine `ray`: jobs on the workers of a Ray cluster, which need share no disk with the driver.

The code of `skd` and `pipelines` goes to the workers with the jobs. The folders that a job reads go
through Ray's object store under a hash of their contents, once a worker, and what the job leaves
in scratch comes back the same way. The driver is the stage's own process: it alone writes outputs.
Refuses to know what the jobs do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.closure import PACKAGES, ROOT
from pipelines.runs.jobs import Finished, Job, Result, finish, folders
from pipelines.runs.machine import Machine
from pipelines.runs.progress import FINISHED
from pipelines.runs.scratch import alone, fingerprint
from skd.errors import UserError
from skd.files import write_folder, write_text

Files = dict[str, bytes]  # path inside a folder -> content
# Ray's switch, read when it is imported; without other machines it listens on loopback alone
_OTHER_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def run_on_cluster(
    jobs: Sequence[Job[Result]], machine: Machine, _extra: int
) -> list[Finished[Result]]:
    """The jobs' results in their order. The cluster decides how many go at once."""
    wanted = {job.key: job for job in jobs}
    done = {name for name in wanted if (machine.scratch / name / FINISHED).exists()}
    if missing := {name: job for name, job in wanted.items() if name not in done}:
        _make(missing, machine)
    return [finish(job, machine) for job in jobs]


def _make(jobs: Mapping[str, Job[Any]], machine: Machine) -> None:
    """Let workers do the jobs; what they leave is put in scratch as it comes."""
    ray = _connected()
    on_cores = machine.device.type == "cpu"
    work = ray.remote(_work).options(
        num_cpus=1, num_gpus=0 if on_cores else 1 / machine.runtime.per_device
    )
    quiet = dataclasses.replace(
        machine, runtime=dataclasses.replace(machine.runtime, progress=False)
    )
    packed: dict[str, Any] = {}
    waiting = {}
    for name, job in jobs.items():
        contents = {field: fingerprint(folder) for field, folder in folders(job).items()}
        for field, content in contents.items():
            if content not in packed:
                packed[content] = ray.put(_pack(folders(job)[field]))
        inputs = {field: (content, packed[content]) for field, content in contents.items()}
        waiting[work.remote(name, job, inputs, quiet)] = name
    with tqdm(total=len(waiting), unit=" jobs", disable=not machine.runtime.progress) as bar:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            name = waiting.pop(done)
            try:
                files = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                for other in waiting:
                    ray.cancel(other)
                raise error.cause from error
            except ray.exceptions.RayError as error:  # a lost worker's job was tried again before
                raise ChildProcessError(
                    f"the Ray cluster has lost what worked on {name} ({type(error).__name__}); "
                    "what was finished is kept: run the same command again"
                ) from error
            _put(files, machine.scratch / name)
            bar.update()


def _put(files: Files, folder: Path) -> None:
    """Into scratch, unless another stage has had the same job done meanwhile."""
    with alone(folder):
        if not (folder / FINISHED).exists():
            last = files.pop(FINISHED).decode()
            _unpack(files, folder)
            write_text(folder / FINISHED, last)  # which says that all is there


def _work(
    name: str, job: Job[Any], inputs: Mapping[str, tuple[str, Any]], machine: Machine
) -> Files:
    """On a worker: what the job has left in the folder of its name."""
    import ray

    fetched = machine.scratch.resolve() / "inputs"
    own = {field: fetched / content for field, (content, _) in inputs.items()}
    for field, (_, packed) in inputs.items():
        with alone(own[field]):
            if not own[field].exists():
                write_folder(own[field], partial(_unpack, ray.get(packed)))
    here = dataclasses.replace(job, **own)  # type: ignore[type-var]
    if here.key != name:
        where = f"{ray.util.get_node_ip_address()}:{fetched}"
        raise UserError(f"{where} is damaged ({here.key}, not {name}); remove it and run again")
    return _pack(finish(here, machine).folder)


def _connected() -> Any:
    """Ray, with this process as a driver: of the cluster at RAY_ADDRESS, or of one it starts here.

    Raises `UserError` where Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if address is None:  # on loopback; and not what a file of some former cluster points at
        os.environ[_OTHER_MACHINES] = "0"
    try:
        import ray
    except ImportError:
        raise UserError(
            "runtime.engine: ray needs Ray: pip install 'ray==2.60.0', here and on all workers"
        ) from None
    if not ray.is_initialized():
        # `python` finds the packages in a worker's working directory, and scratch lies there too.
        # Nothing goes but the root itself and these, in the words of .gitignore.
        kept = ["/*", "!.", *(f"!/{package}" for package in PACKAGES)]
        ray.init(
            address=address or "local",
            runtime_env={"working_dir": str(ROOT), "excludes": kept},
            log_to_driver=False,
            logging_level="error",
        )
    return ray


def _pack(folder: Path) -> Files:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _unpack(files: Files, folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
