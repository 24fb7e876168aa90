"""The files of deploy fit each other and the repository; validators and fakes try them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import DeploymentCreate, WorkPoolCreate
from prefect.utilities.templating import find_placeholders

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
POOL = json.loads((DEPLOY / "work-pool.json").read_text(encoding="utf-8"))
VOLUME = yaml.safe_load((DEPLOY / "volume.yaml").read_text(encoding="utf-8"))
RAY = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8"))
JOB_POD = POOL["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
HEAD_POD = RAY["spec"]["headGroupSpec"]["template"]["spec"]
WORKER_PODS = [group["template"]["spec"] for group in RAY["spec"]["workerGroupSpecs"]]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
(KUBERNETES,) = (one for one in DEPLOYMENTS if one["name"] == "kubernetes")


# ------------------------------------------------------------------------- the image
def instructions(name: str) -> list[str]:
    """What stands behind each instruction of that name in the Dockerfile."""
    whole = re.sub(r"\\\n\s*", "", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", whole, re.MULTILINE)


def test_the_image_has_a_python_that_the_project_runs_on_and_is_no_roots() -> None:
    assert instructions("FROM") == ["python:3.11-slim"]
    assert instructions("USER") == [str(JOB_POD["securityContext"]["runAsUser"])]


def test_the_image_is_made_of_files_and_commands_that_are_there() -> None:
    copied = [word for line in instructions("COPY") for word in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)$", DOCKERFILE, re.MULTILINE)) == {"install"} <= targets
    assert [json.loads(line) for line in instructions("CMD")] == [["make", "repro"]]
    (extras,) = re.findall(r'--editable "\.\[(.+)\]"', DOCKERFILE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_what_git_ignores_stays_out_of_the_image() -> None:
    kept_out = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    for file in (".gitignore", ".dvc/.gitignore"):
        folder = file.removesuffix(".gitignore")
        for line in (ROOT / file).read_text(encoding="utf-8").split():
            name = line.strip("/")
            assert f"{folder}{name}" in kept_out or f"**/{name}" in kept_out, (file, line)


def test_volumes_are_mounted_on_folders_that_the_user_of_the_image_owns() -> None:
    folder = instructions("WORKDIR")[0]
    made = {f"{folder}/.dvc/cache", f"{folder}/.scratch", "/hub"}
    assert f"1000 {folder} /hub" in DOCKERFILE
    assert "mkdir -p .dvc/cache .scratch" in DOCKERFILE
    assert "HF_HOME=/hub" in DOCKERFILE
    for pod in (JOB_POD, HEAD_POD):
        assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == made
    (step,) = KUBERNETES["pull"]
    assert [arguments["directory"] for arguments in step.values()] == [folder]


# -------------------------------------------------------------------------- the pool
def test_prefect_accepts_the_work_pool_and_the_deployment_on_it() -> None:
    WorkPoolCreate(name="kubernetes", type="kubernetes", base_job_template=POOL)
    asked = KUBERNETES["work_pool"]["job_variables"]
    assert set(asked) <= set(POOL["variables"]["properties"])
    made = DeploymentCreate(name="kubernetes", flow_id=uuid4(), job_variables=asked)
    made.check_valid_configuration(POOL)


def test_the_pool_uses_every_variable_that_it_offers_and_no_other() -> None:
    used = {one.name for one in find_placeholders(POOL["job_configuration"])}
    assert used == set(POOL["variables"]["properties"])


def test_jobs_and_the_ray_cluster_share_image_volume_and_secret() -> None:
    defaults = {name: one.get("default") for name, one in POOL["variables"]["properties"].items()}
    containers = [pod["containers"][0] for pod in (HEAD_POD, *WORKER_PODS)]
    images = {container["image"] for container in containers}
    assert images == {defaults["image"], KUBERNETES["work_pool"]["job_variables"]["image"]}
    claims = [one["persistentVolumeClaim"]["claimName"] for one in HEAD_POD["volumes"]]
    assert claims == [defaults["claim"]] == [VOLUME["metadata"]["name"]]
    assert containers[0]["envFrom"][0]["secretRef"]["name"] == defaults["secret"]


def test_the_ray_cluster_is_of_the_pinned_version_and_asks_for_a_token() -> None:
    assert PROJECT["optional-dependencies"]["ray"] == [f"ray=={RAY['spec']['rayVersion']}"]
    assert RAY["spec"]["authOptions"] == {"mode": "token"}
    assert RAY["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert [pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in WORKER_PODS]


def test_no_file_holds_a_secret() -> None:
    for file in DEPLOY.iterdir():
        assert not re.search(
            r"(?i)(secret|token|password|key)\w*[=:] *[\w/+]{20,}", file.read_text()
        )


# ---------------------------------------------------------------- the field's own validators
def job(**variables: Any) -> dict[str, Any]:
    """The job that Prefect's Kubernetes worker makes of a flow run."""
    worker = pytest.importorskip(
        "prefect_kubernetes.worker", reason="the extra `deploy` is not installed"
    )
    template = worker.KubernetesWorkerJobConfiguration.from_template_and_values
    no_server = object()  # nothing in the pool refers to what a server holds
    configuration = asyncio.run(template(POOL, variables, client=no_server))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="some-run"))
    return configuration.job_manifest


def valid(resource: dict[str, Any]) -> None:
    """Raises where Kubernetes' schema, without room for unknown fields, says no."""
    validator = pytest.importorskip(
        "kubernetes_validate", reason="the extra `deploy` is not installed"
    )
    validator.validate(resource, validator.latest_version(), strict=True)


@pytest.mark.parametrize("variables", [{}, KUBERNETES["work_pool"]["job_variables"], {"gpus": 0}])
def test_the_job_is_one_for_kubernetes(variables: dict[str, Any]) -> None:
    made = job(**variables)
    for field in (
        "completions",
        "parallelism",
    ):  # a job's, which Prefect wants here; no pod has them
        assert made["spec"]["template"]["spec"].pop(field) == 1
    valid(made)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == variables.get("gpus", 1)
    assert made["spec"]["backoffLimit"] == 0


def test_the_other_manifests_are_for_kubernetes_too() -> None:
    valid(VOLUME)
    for pod in (HEAD_POD, *WORKER_PODS):  # the kind RayCluster itself is KubeRay's
        valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod})


def test_a_field_that_kubernetes_does_not_know_is_found_out() -> None:
    wrong = {**VOLUME, "spec": {**VOLUME["spec"], "sizes": 1}}
    with pytest.raises(Exception, match="sizes"):
        valid(wrong)


@pytest.mark.parametrize(
    ("linter", "file"), [("shellcheck", "slurm-ray.sh"), ("hadolint", "Dockerfile")]
)
def test_linters_have_nothing_to_say(linter: str, file: str) -> None:
    command = shutil.which(linter, path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the extra `deploy` is not installed")
    done = subprocess.run(
        [command, str(DEPLOY / file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# ------------------------------------------------------------------------- Slurm, with fakes
# Each fake writes down what it was asked, and whether it was shown the token.
FAKE = """#!/usr/bin/env bash
echo "${0##*/} $* | ${RAY_ADDRESS:-} | ${RAY_AUTH_TOKEN:-}" >> "$LOG"
"""
FAKES = {
    "scontrol": "printf '%s\\n' $NODES\n",
    "srun": "[[ -e dead ]] && exit 1\n"
    "trap 'kill $!; echo ended >> \"$LOG\"; exit 143' TERM\n"
    '/bin/sleep 60 & echo ready >> "$LOG"; wait\n',
    "ray": "[[ -e up ]] || { touch up; exit 1; }\n",  # the second time it answers
    "make": 'until (($(grep -c ready "$LOG") == $STEPS)); do /bin/sleep 0.05; done\n'
    "exit ${STATUS:-0}\n",
    "sleep": "exec /bin/sleep 0.05\n",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("runtime:\n  engine: ray\n")
    tools = tmp_path / ".venv/bin"
    tools.mkdir(parents=True)
    (tools / "python").symlink_to(sys.executable)
    for name, body in FAKES.items():
        (tools / name).write_text(FAKE + body)
        (tools / name).chmod(0o755)
    return tmp_path


def submit(clone: Path, *command: str, nodes: str = "n1 n2 n3", **environment: str) -> Any:
    """Run the script as Slurm would on the first node; gives what was run and its lines."""
    given = {
        "PATH": "/usr/bin:/bin",
        "LOG": str(clone / "log"),
        "SLURM_SUBMIT_DIR": str(clone),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_CPUS_PER_TASK": "8",
        "NODES": nodes,
        "STEPS": str(min(2, len(nodes.split()))),
    }
    done = subprocess.run(
        ["bash", str(DEPLOY / "slurm-ray.sh"), *command],
        env=given | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    log = clone / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return done, [line for line in lines if not line.startswith(("sleep ", "ready"))]


@pytest.mark.parametrize("status", [0, 3])
def test_slurm_head_then_workers_then_the_command_and_nothing_stays(clone, status) -> None:
    done, lines = submit(clone, STATUS=str(status))
    assert done.returncode == status
    asked, addresses, tokens = zip(
        *(line.split(" | ") for line in lines if "ended" not in line), strict=True
    )
    step = "--cpus-per-task=8"
    assert sorted(asked[:4]) == sorted(
        [
            "scontrol show hostnames n[1-3]",
            f"srun --nodes=1 --ntasks=1 {step} --nodelist=n1 ray start --head --port=23456"
            " --include-dashboard=false --num-cpus=8 --block",
            *2 * ["ray status --address=n1:23456"],
        ]
    )
    assert sorted(asked[4:]) == [
        "make repro",
        f"srun --nodes=2 --ntasks=2 {step} --exclude=n1 ray start --address=n1:23456"
        " --num-cpus=8 --block",
    ]
    assert addresses[asked.index("make repro")] == "n1:23456"
    assert asked[0].startswith("scontrol")
    (token,) = set(tokens[1:])  # made after Slurm was asked for the nodes, the same for all
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert token not in " ".join(asked) + done.stdout + done.stderr
    assert sum(line.startswith("ended") for line in lines) == 2


def test_slurm_another_command_and_a_single_node(clone) -> None:
    done, lines = submit(clone, "make", "flow", nodes="n1")
    assert done.returncode == 0
    assert sum(line.startswith("srun ") for line in lines) == 1
    assert any(line.startswith("make flow |") for line in lines)


def test_slurm_two_jobs_have_two_tokens(clone) -> None:
    def token() -> str:
        (clone / "log").unlink(missing_ok=True)
        _, lines = submit(clone)
        return next(line.rpartition(" | ")[2] for line in lines if line.startswith("make"))

    assert token() != token()


def test_slurm_a_head_that_does_not_start_is_named_and_nothing_runs(clone) -> None:
    (clone / "dead").touch()
    (clone / ".venv/bin/ray").write_text("#!/bin/sh\nexit 1\n")
    done, lines = submit(clone)
    assert done.returncode == 1
    assert "did not start on n1" in done.stderr
    assert [line for line in lines if line.startswith("make")] == []


def test_slurm_an_experiment_of_one_machine_is_refused(clone) -> None:
    (clone / "params.yaml").write_text("runtime:\n  engine: local\n")
    done, lines = submit(clone)
    assert (done.returncode, lines) == (2, [])
    assert "runtime.engine: ray" in done.stderr
