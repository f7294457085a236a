#!/usr/bin/env bash
# Steers a dense model by what a sparse one can be read to mean: trains a dense and a sparse model of four layers, joins them by bridges,
# finds the sparse model's circuits for `single_double_quote` and `while_return_true`, and turns up the channel that moves the dense model most.
#
#     examples/steer_quotes.sh [OUT] [--quick]
#
# OUT is runs/steer_quotes unless given; stages that are done are not done again. In full: 49 minutes on two cores (dense 8, sparse 13, bridges 24, circuits
# and steering 4); --quick: tiny models that know nothing, in seconds. TRAIN and GOSSAMER name the two binaries, if they shall not be built here.
set -euo pipefail

out=runs/steer_quotes quick=
for argument; do
    case $argument in
        --quick) quick=yes ;;
        -*) printf 'unknown: %s\n' "$argument" >&2 && exit 2 ;;
        *) out=$argument ;;
    esac
done
if [[ -z ${TRAIN:-} || -z ${GOSSAMER:-} ]]; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    cargo build --release --bins --manifest-path "$root/Cargo.toml"
    TRAIN=$root/target/release/train GOSSAMER=$root/target/release/gossamer
fi

# stage NAME COMMAND...: that run, or what was left of it.
stage() {
    local name=$1
    shift
    if [[ -e $out/$name/config.toml ]]; then "$TRAIN" --resume "$out/$name"; else "$@" --out "$out/$name"; fi
}
# set_each KEY=VALUE...: leaves them in `flags` as arguments.
set_each() {
    local setting
    flags=()
    for setting; do flags+=(--set "$setting"); done
}

dense_steps=5000 sparse_steps=10000 bridge_steps=2000
shape=(n_layer=4) common=(samples=0 tasks=false) prune=(steps=300 eval_pairs=256) pairs=64
if [[ $quick ]]; then
    dense_steps=30 sparse_steps=30 bridge_steps=10 pairs=4
    shape=(n_layer=2 d_model=32 n_head=2 d_mlp=64 vocab_size=512)
    common=(samples=0 tasks=false generated_documents=400 eval_sequences=8 batch_size=8)
    prune=(steps=10 pairs=4 eval_pairs=8 target_loss=10)
fi
set_each "${common[@]}" && common=("${flags[@]}")
set_each "${shape[@]}" && shape=("${flags[@]}" "${common[@]}")
set_each "${prune[@]}" && prune=("${flags[@]}")

stage dense "$TRAIN" --preset circuits "${shape[@]}" --steps "$dense_steps" \
    --set afrac=none --set target_density=1 --set embed_target_density=1 --set lr=8e-3
stage sparse "$TRAIN" --preset circuits "${shape[@]}" --steps "$sparse_steps" --tokenizer "$out/dense/tokenizer.json"
stage bridged "$TRAIN" bridges --dense "$out/dense" --sparse "$out/sparse" --preset circuits "${common[@]}" --steps "$bridge_steps"
"$GOSSAMER" bridge eval "$out/bridged" --chart "$out/bridges.png"

for task in single_double_quote while_return_true; do
    circuit=$out/circuits/$task.json
    [[ -e $circuit ]] || "$TRAIN" circuit "$out/bridged" --task "$task" --out "$out/circuits" "${prune[@]}"
    # A model that knows nothing has no circuit to find the channel in.
    by=(--circuit "$circuit")
    if [[ $quick ]]; then by=(--task "$task" --node "0.mlp.act_in[3]"); fi
    printf '\n== %s\n' "$task"
    "$GOSSAMER" steer "$out/bridged" "${by[@]}" --pairs "$pairs" --csv "$out/$task.csv" --chart "$out/$task.png"
done
