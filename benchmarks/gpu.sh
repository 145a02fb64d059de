#!/usr/bin/env bash
# Everything that wants a GPU, within nine minutes, offline: tests, sanitizer, certificate, vectors of hardware, benchmarks.
#
#   benchmarks/gpu.sh [FOLDER]                  results to FOLDER (default: benchmarks/gpu); the summary comes last
#   DEVICE=cuda-sim benchmarks/gpu.sh FOLDER    a rehearsal without a GPU: every part, tiny; its times mean nothing
#   BUDGET=540 PYTHON=python3 WHEELS=DIR        seconds in all (a rehearsal: 1500); the interpreter; a folder of wheels
#                                               of what it lacks
#
# A part has its own time; it is left out, and named, when less than a third of that is left. Nothing stops the others.
set -uo pipefail
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda}
PYTHON=${PYTHON:-python3}
OUT=${1:-benchmarks/gpu}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
rm -f "$OUT"/*.log "$OUT"/*.json "$OUT"/parts.tsv
if [ -n "${WHEELS:-}" ]; then
    "$PYTHON" -m venv --system-site-packages "$OUT/venv"
    PYTHON="$OUT/venv/bin/python"
    "$PYTHON" -m pip install --quiet --no-index --find-links "$WHEELS" pytest hypothesis numba rich safetensors \
        matplotlib platformdirs tomli-w pillow
fi

note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" | tee -a "$OUT/parts.tsv"; }

# part NAME SECONDS COMMAND...: run it, its output to NAME.log.
part() {
    local name=$1 limit=$(($2 * SCALE)) left=$((BUDGET - SECONDS)) began=$SECONDS status
    shift 2
    if [ "$left" -lt $((limit / 3)) ]; then
        note "$name" "left out: $left s left of $BUDGET" 0
        return
    fi
    [ "$limit" -gt "$left" ] && limit=$left
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
    status=$?
    case $status in
    0) note "$name" ok $((SECONDS - began)) ;;
    124 | 137) note "$name" "stopped after $limit s" $((SECONDS - began)) ;;
    *) note "$name" "FAILED ($status): $(tail -n 1 "$OUT/$name.log" | cut -c 1-160)" $((SECONDS - began)) ;;
    esac
}

# bench NAME SECONDS ARGUMENTS...: one record, NAME.json.
bench() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$PYTHON" -m minifcn bench "$@" --device "$DEVICE" $EFFORT --json "$OUT/$name.json"
}

if [ "$DEVICE" = cuda ]; then
    BUDGET=${BUDGET:-540} SCALE=1 CHOSEN="" MEMORY="" LAYERS=bfloat16
    EXAMPLES=8 EFFORT="--rounds 12 --seconds 0.3 --limit 20"
    CHECKED=(--all)
    SHAPES=(--shape "16x64x56x56->64" --shape "16x256x28x28->256")
    NETWORK=(--net small --size 256 --batch 16 --classes 21) LARGE=(--net vgg16 --size 500 --batch 1 --classes 21)
    PRECISIONS="float32 tf32 bfloat16"
else
    BUDGET=${BUDGET:-1500} SCALE=4 CHOSEN="not test_every_kernel or fastest"
    EXAMPLES=1 EFFORT="--rounds 1 --seconds 0.001 --limit 1"
    CHECKED=(relu max_pool2d)
    SHAPES=(--shape "1x16x6x6->16")
    NETWORK=(--net small --size 16 --batch 1 --classes 4) LARGE=() MEMORY=--no-memory LAYERS=float32
    PRECISIONS="float32 bfloat16"
fi

part doctor 30 "$PYTHON" -m minifcn doctor
part vectors 60 "$PYTHON" -m tests.cuda.vectors --device "$DEVICE" --into "$OUT"
part tests 120 env MINIFCN_GPU_TESTS="$DEVICE" "$PYTHON" -m pytest -q -m gpu -k "$CHOSEN" tests
part certificate 90 "$PYTHON" -m minifcn check "${CHECKED[@]}" --device "$DEVICE" --examples "$EXAMPLES" \
    --certificate "$OUT/certificate.md"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        part "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$PYTHON" -m tests.cuda.vectors --device "$DEVICE" --into "$OUT/$tool"
    done
else
    note sanitizer "left out: compute-sanitizer is not installed" 0
fi
for precision in $PRECISIONS; do
    bench "step-$precision" 45 step "${NETWORK[@]}" --precision "$precision" --baseline torch $MEMORY
    bench "ladder-$precision" 45 ladder "${SHAPES[@]}" --precision "$precision" --baseline torch
done
for precision in $PRECISIONS; do
    bench "step-$precision-tuned" 45 step "${NETWORK[@]}" --precision "$precision" --baseline torch-tuned --no-memory
    bench "step-$precision-graph" 45 step "${NETWORK[@]}" --precision "$precision" --baseline torch-tuned --no-memory \
        --graph
    bench "infer-$precision-tuned" 45 infer "${NETWORK[@]}" --precision "$precision" --baseline torch-tuned --no-memory
done
bench step-compile 90 step "${NETWORK[@]}" --precision bfloat16 --baseline torch-compile --no-memory
bench infer-compile 90 infer "${NETWORK[@]}" --precision bfloat16 --baseline torch-compile --no-memory
bench layers 60 layers "${NETWORK[@]}" --precision "$LAYERS" --baseline torch-tuned
[ ${#LARGE[@]} -gt 0 ] && bench infer-vgg16 60 infer "${LARGE[@]}" --precision bfloat16 --baseline torch-tuned

"$PYTHON" benchmarks/summary.py "$OUT" | tee "$OUT/summary.md"
! grep -q FAILED "$OUT/parts.tsv"
