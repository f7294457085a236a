#!/usr/bin/env bash
# One training on several processes: `examples/mpi_train.sh [RANKS [FOLDER [ARGUMENT OF train]...]]`, here, or on what a batch job was
# given. If FOLDER holds a run, it continues. `train` must be built with `--features mpi`.
# As root, as in a container, Open MPI also wants OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 in the environment.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
set -euo pipefail

ranks=${1:-${SLURM_NTASKS:-2}}
folder=${2:-runs/ranks}
shift $(($# < 2 ? $# : 2))
if [[ -e $folder/config.toml ]]; then
    set -- --resume "$folder"
elif (($# == 0)); then
    set -- --preset quickstart --steps 200 --out "$folder"
else
    set -- "$@" --out "$folder"
fi
# Where mpirun is, it knows a Slurm job's nodes. Otherwise there may be fewer processors than ranks.
options=()
if [[ -z ${SLURM_JOB_ID:-} ]]; then options=(--oversubscribe); fi
exec mpirun "${options[@]}" -n "$ranks" train "$@"
