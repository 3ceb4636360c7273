#!/bin/bash
# A sweep on several nodes of a Slurm cluster:  sbatch docs/cluster/slurm.sh sweeps/my.yaml
# Storage must be a folder that all nodes share. Requeued or submitted again, the same line goes on where it was.
#SBATCH --job-name=ray-al
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1          # leave out on nodes without GPUs
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120        # two minutes before the end: the sweep stops cleanly
#SBATCH --requeue
set -euo pipefail

SWEEP=${1:?usage: sbatch docs/cluster/slurm.sh SWEEP [options of ray-al run]}
VENV=${RAY_AL_VENV:-$SLURM_SUBMIT_DIR/.venv}
PORT=${RAY_AL_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
cd "$SLURM_SUBMIT_DIR"

# A token of this job's own. It is in a file that nobody else can read, never on a command line.
umask 077
SECRETS=$(mktemp -d "$SLURM_SUBMIT_DIR/.ray-al-XXXXXX")
trap 'rm -rf "$SECRETS"' EXIT
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$SECRETS/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$SECRETS/token" RAY_USAGE_STATS_ENABLED=0

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
HEAD_IP=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{print $1}')
CPUS=${SLURM_CPUS_PER_TASK:-1}

# Each node's Ray lives in a short folder on its own disk: paths of sockets may have 107 bytes only.
srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  "$VENV/bin/ray" start --block --head --node-ip-address="$HEAD_IP" --port="$PORT" --num-cpus="$CPUS" \
  --dashboard-host=127.0.0.1 --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
for _ in $(seq 60); do
  RAY_ADDRESS="$HEAD_IP:$PORT" "$VENV/bin/ray" status > /dev/null 2>&1 && break
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" \
    "$VENV/bin/ray" start --block --address="$HEAD_IP:$PORT" --num-cpus="$CPUS" --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
fi

# This script runs on the first node of the job, which is the head.
"$VENV/bin/ray-al" run "$SWEEP" --address "$HEAD_IP:$PORT" "${@:2}" &
RUN=$!
trap 'kill -TERM "$RUN"' TERM
code=0
while kill -0 "$RUN" 2> /dev/null; do
  wait "$RUN" && code=0 || code=$?
done
exit "$code"
