#!/usr/bin/env bash
# A sweep as an array job: `sbatch examples/slurm_sweep.sh [SWEEP.toml]`, and once all tasks have ended
# `gossamer sweep collect SWEEP.toml`. Submit it again to do what was not finished.
# Without Slurm, `examples/slurm_sweep.sh` does the same parts as plain processes, and collects.
#SBATCH --job-name=sweep
#SBATCH --array=0-2
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=sweep-%A_%a.log
set -euo pipefail

sweep=${1:-examples/sweep.toml}
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    exec gossamer sweep "$sweep" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
fi

parts=3
processes=()
for ((part = 0; part < parts; part++)); do
    gossamer sweep "$sweep" --shard "$part/$parts" &
    processes+=($!)
done
for process in "${processes[@]}"; do
    wait "$process"
done
gossamer sweep collect "$sweep"
