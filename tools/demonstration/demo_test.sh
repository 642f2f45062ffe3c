#!/usr/bin/env bash
# Runs kedge_demo on the shipped samples: with a kedged, embedded, and with bad input.
set -euo pipefail
cd "${TEST_SRCDIR}/${TEST_WORKSPACE}"
demo=tools/demonstration/kedge_demo
out=${TEST_TMPDIR}
export TMPDIR=$out

fail() {
  echo "FAILED: $*" >&2
  cat "$out"/*.log >&2
  exit 1
}

# Arguments: what is expected on stdout or stderr, the exit status, the command line.
expect() {
  local text=$1 status=$2 actual=0
  shift 2
  "$demo" "$@" > "$out/demo.log" 2>&1 || actual=$?
  [[ $actual -eq $status ]] || fail "exit status $actual, not $status: $*"
  grep -q -e "$text" "$out/demo.log" || fail "no '$text' in the output of: $*"
}

small=(--quick --questions 2 --requests 20 --answer-tokens 4)
expect 'yes' 0 "${small[@]}" --json "$out/figures.json" --kedged store/node/kedged
grep -q '"same_tokens": true' "$out/figures.json" || fail "figures.json"
grep -q '"kedge_put_blocks_total": [1-9]' "$out/figures.json" || fail "no metrics in figures.json"
expect 'shm' 0 "${small[@]}" --transport shm --kedged store/node/kedged
expect 'Done in' 0 "${small[@]}" --embedded

tools/checkpoint/kedge_checkpoint --out "$out/model" --preset small --layers 2
agents=(--model "$out/model" --agents 3 --agent-requests 2 --agent-output 8)
expect '2 of 2' 0 "${small[@]}" "${agents[@]}" --embedded --json "$out/agents.json"
grep -q '"requests": 2' "$out/agents.json" || fail "no agents in agents.json"

# Stored bytes before and after, by variant, through the gate of the model's profile. Four bits
# change no answer: not to the questions, not of an agent.
expect 'answers as without Kedge: yes' 0 "${small[@]}" --model tests/quality/models/eval-1 \
  --agent-requests 1 --agent-learnt 1 --policy kivi4 --kedged store/node/kedged \
  --json "$out/kivi.json"
grep -q '^    "same_tokens": true' "$out/kivi.json" || fail "kivi4 changed the answer to a question"
# What agents reuse beyond prefixes: more than the role text, with the answers of dense agents, and
# never said to be exact.
python3 - "$out/kivi.json" << 'END' || fail "agents or reuse in kivi.json"
import json, sys
figures = json.load(open(sys.argv[1]))
agents = figures["agents"]["agents"]
count = {name: sum(agent[name] for agent in agents) for name in agents[0]}
assert count["answers"] == count["same_answers"] == 15, count
assert count["right_answers"] >= 13, count
reuse = figures["reuse"]
ways = {way["way"]: way["agents"] for way in reuse["ways"]}
assert list(ways) == ["dense", "prefix", "kvcomm", "dhd", "auto"], list(ways)
assert reuse["mixed_by"] == "node", reuse["mixed_by"]
for name, agents in ways.items():
    for agent in agents:
        assert sum(agent["tokens"].values()) == agent["prompt_tokens"], (name, agent)
        assert agent["same_answers"] >= agent["answers"] - 1, (name, agent)
assert all(agent["provenance"] == "dense" for agent in ways["dense"] + ways["prefix"])
# Rates are measured: a call may be found slower than dense, all of them are not.
reused = {name: [agent["reused_tokens"] for agent in agents] for name, agents in ways.items()}
assert sum(reused["auto"]) > sum(reused["prefix"]), reused
for prefix, auto in zip(ways["prefix"], ways["auto"]):
    approximate = auto["provenance"] in ("corrected", "recomputed")
    assert approximate == (auto["reused_tokens"] > prefix["reused_tokens"]), (prefix, auto)
END
grep -q '"variant": "kivi4g32"' "$out/kivi.json" || fail "no kivi4g32 in kivi.json"
grep -q 'kedge_variant_bytes{.*kivi4g32' "$out/kivi.json" || fail "the node has no kivi4g32"

if compgen -G "$out/kedge_demo_*" > /dev/null; then fail "a temporary directory was left"; fi

expect '--transport' 2 --transport pigeon
expect 'zip' 2 --policy zip --model tests/quality/models/eval-1
expect 'no section "entropy/archive0.25"' 2 --policy archive0.25 --model tests/quality/models/eval-1
expect '--policy kivi4: needs --model' 2 --policy kivi4
expect 'kedge_profile.bin: cannot be read' 2 --policy kivi4 --model "$out/model"
expect '--questions' 2 --questions 0
expect '--dataset: /nonexistent' 2 --dataset /nonexistent
echo '{"timestamp": 0, "input_length": -3}' > "$out/bad.jsonl"
expect 'bad.jsonl:1: input_length: -3' 2 --trace "$out/bad.jsonl"
expect '--model: open /nonexistent' 2 --model /nonexistent
expect 'need .* tokens; the model takes 131072' 2 --model "$out/model" --agent-output 100000
expect '--scratch: /nonexistent' 2 --scratch /nonexistent
expect '--json' 2 --json /nonexistent/figures.json
expect '/nonexistent' 1 "${small[@]}" --kedged /nonexistent
echo 'kedge_demo: all checks passed'
