#!/bin/sh
# Serves one checkpoint by vLLM on the CPU, on port 8000 or PORT. What it needs, by the environment:
#   CHECKPOINT     a directory in the Hub's layout
#   NAME           what it is called here: the right side of STAGERELEASE_INFERENCE_MODELS
#   VLLM_KEY_FILE  the secret that whoever asks must send
# DTYPE is float32 unless told otherwise (bfloat16). bench/vllm.py starts the same script.
set -eu
: "${CHECKPOINT:?name a directory in the layout of the Hub}" "${NAME:?say what it is called}"
: "${VLLM_KEY_FILE:?name the file with the secret}" "${DTYPE:=float32}" "${PORT:=8000}" "${HOST:=0.0.0.0}"

VLLM_API_KEY=$(cat "$VLLM_KEY_FILE")
export VLLM_API_KEY
# Nobody is told that this runs, nothing is fetched, and threads are left where they are.
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"

exec python -m vllm.entrypoints.openai.api_server \
    --model "$CHECKPOINT" --served-model-name "$NAME" --dtype "$DTYPE" --max-model-len 1024 \
    --enforce-eager --host "$HOST" --port "$PORT"
