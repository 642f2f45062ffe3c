#!/usr/bin/env bash
# tools/bench quality on the shipped model, small: a line for every task and policy, and bad input
# refused by name.
set -euo pipefail
cd "${TEST_SRCDIR}/${TEST_WORKSPACE}"
bench=tools/benchmarks/quality_bench
model=tests/quality/models/eval-1
out=${TEST_TMPDIR}
export TMPDIR=$out

fail() {
  echo "FAILED: $*" >&2
  cat "$out/bench.log" >&2
  exit 1
}

# Arguments: what is expected on stdout or stderr, the exit status, the command line.
expect() {
  local text=$1 status=$2 actual=0
  shift 2
  "$bench" "$@" > "$out/bench.log" 2>&1 || actual=$?
  [[ $actual -eq $status ]] || fail "exit status $actual, not $status: $*"
  grep -q -e "$text" "$out/bench.log" || fail "no '$text' in the output of: $*"
}

expect '"dense/accuracy/role"' 0 --model "$model" --contexts 3 --json
for task in alias carry ditto judge long recall role sum; do
  for name in dense/accuracy none/accuracy none/points_lost none/kl fetched/kl twin8/none/kl; do
    grep -q "\"case\":\"$name/$task\"" "$out/bench.log" || fail "no $name/$task"
  done
  grep "\"case\":\"fetched/kl/$task\"" "$out/bench.log" | grep -q '"value":0.0' ||
    fail "fetched is not dense: $task"
done
for name in none/loss_added/prose dense/consistency/judge sink/mass twin8/keys/channel_ratio; do
  grep -q "\"case\":\"$name\"" "$out/bench.log" || fail "no $name"
done
expect 'CASE' 0 --model "$model" --contexts 1 --task role --query-aware --twin 1
expect 'narrow\|WIDE' 0 --model "$model" --tasks tests/quality/shipped_tasks --contexts 2 \
  --task role --twin 1

expect '/nonexistent/config.json' 2 --model /nonexistent
expect "'magic' is none of: dense, none" 2 --model "$model" --policy magic --task role --contexts 1
expect "no 'magic' in" 2 --model "$model" --task magic --contexts 1
expect 'twin_scale: 3' 2 --model "$model" --twin 3 --task role --contexts 1
mkdir "$out/other"
sed '1s/"version": 2/"version": 7/' tests/quality/shipped_tasks/role.jsonl > "$out/other/role.jsonl"
expect 'role.jsonl:1: version: 7' 2 --model "$model" --tasks "$out/other"
cp -rL "$model" "$out/short" && chmod -R u+w "$out/short"
sed -i 's/"evaluated_tokens": *[0-9]*/"evaluated_tokens": 100/' "$out/short/kedge_eval.json"
expect 'short was evaluated up to 100' 2 --model "$out/short" --task recall --contexts 1
head -c 100000 "$model/model.safetensors" > "$out/short/model.safetensors"
expect 'model.safetensors' 2 --model "$out/short" --task sum --contexts 1
echo 'quality_bench: all checks passed'
