#!/usr/bin/env bash
# A sweep as an array job: `sbatch examples/slurm_sweep.sh [SWEEP.toml]`, and once all tasks have ended
# `gossamer sweep collect SWEEP.toml`. Submit it again, or a single part with `sbatch --array=1`, to do what was not finished.
# Without Slurm, `examples/slurm_sweep.sh` does the same parts as plain processes, and collects.
#SBATCH --job-name=sweep
#SBATCH --array=0-2
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=sweep-%A_%a.log
set -euo pipefail

# As many as `--array` has above. A part that is submitted alone does not know.
parts=3
sweep=${1:-examples/sweep.toml}
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    exec gossamer sweep "$sweep" --shard "$SLURM_ARRAY_TASK_ID/$parts"
fi

# Each part is a process group, so that its training hears of it when it is to stop.
set -m
processes=() stopped=
stop() {
    stopped=$1
    for process in "${processes[@]}"; do
        kill -TERM -- "-$process" 2>/dev/null || true
    done
}
trap 'stop 129' HUP
trap 'stop 130' INT
trap 'stop 143' TERM
for ((part = 0; part < parts; part++)); do
    gossamer sweep "$sweep" --shard "$part/$parts" &
    processes+=($!)
done
failed=0
for process in "${processes[@]}"; do
    # A signal cuts the wait short: what is being saved is waited for again.
    status=0
    wait "$process" || status=$?
    while ((status > 128)) && kill -0 "$process" 2>/dev/null; do
        status=0
        wait "$process" || status=$?
    done
    ((status == 0)) || failed=1
done
if [[ $stopped ]]; then exit "$stopped"; fi
gossamer sweep collect "$sweep" || failed=1
exit "$failed"
