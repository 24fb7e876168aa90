#!/usr/bin/env bash
# A Ray cluster on the nodes of a Slurm job, and on its first node what drives it. In a clone with
# its .venv on a disk that all nodes see, with runtime.engine: ray in params.yaml:
#     sbatch deploy/slurm-ray.sh               # make repro
#     sbatch deploy/slurm-ray.sh make flow     # or any other command
#     sbatch --partition=NAME --nodes=8 --gpus-per-node=4 deploy/slurm-ray.sh
#SBATCH --job-name=skd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=1-00:00:00
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start it with sbatch, in the clone}"
export PATH="$PWD/.venv/bin:$PATH"
(($#)) || set -- make repro
if ! grep -Eq '^[^#]*\bengine: *"?ray\b' params.yaml; then
    echo "params.yaml: set runtime.engine: ray; as it is, one node would do it all" >&2
    exit 2
fi

names=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
mapfile -t nodes <<<"$names"
head=${nodes[0]} others=$((${#nodes[@]} - 1))
address=$head:$((20000 + SLURM_JOB_ID % 10000)) # jobs may share a node
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID # people may share a node too

# A step of so many nodes, in the background, with one Ray node on each until it is ended. Ray
# would count all of a machine's cores, and a step does not take over the job's cores per task.
steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT
on() {
    srun --nodes="$1" --ntasks="$1" --cpus-per-task="$SLURM_CPUS_PER_TASK" "${@:2}" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    steps+=($!)
}

on 1 --nodelist="$head" ray start --head --port="${address#*:}" --include-dashboard=false
until timeout 60 ray status --address="$address" >/dev/null 2>&1; do
    if ! kill -0 "${steps[0]}" 2>/dev/null || ((SECONDS > 600)); then
        echo "Ray did not start on $head; what it said stands above" >&2
        exit 1
    fi
    sleep 2
done
((others == 0)) || on "$others" --exclude="$head" ray start --address="$address"

RAY_ADDRESS=$address "$@"
