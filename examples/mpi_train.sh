#!/usr/bin/env bash
# One training on several processes: `examples/mpi_train.sh [RANKS [ARGUMENT OF train]...]`, here, or on what a batch job was given.
# `train` must be built with `--features mpi`.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
set -euo pipefail

ranks=${1:-${SLURM_NTASKS:-2}}
shift || true
if (($# == 0)); then
    set -- --preset quickstart --steps 200 --out runs/ranks
fi
# Where mpirun is, it knows a Slurm job's nodes by itself.
exec mpirun -n "$ranks" train "$@"
