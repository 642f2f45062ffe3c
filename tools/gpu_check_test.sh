#!/usr/bin/env bash
# What tools/gpu_check says and returns without a GPU, and how it counts (programs are stand-ins).
set -euo pipefail
script=$PWD/$1
folder=$TEST_TMPDIR/packed
mkdir -p "$folder" "$TEST_TMPDIR/bin"
cp "$script" "$folder/gpu_check"

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

# expect STATUS TEXT ARGUMENT...: runs the packed script.
expect() {
  local status=$1 text=$2 code=0 output
  shift 2
  output=$(PATH=$TEST_TMPDIR/bin:$PATH "$folder/gpu_check" "$@" 2>&1) || code=$?
  [[ $code -eq $status ]] || fail "status $code, expected $status: $output"
  [[ $output == *"$text"* ]] || fail "no '$text' in: $output"
}

# program NAME LINES STATUS
program() {
  printf '#!/bin/sh\nprintf "%%s\\n" "%s"\nexit %s\n' "$2" "$3" > "$folder/$1"
  chmod +x "$folder/$1"
}

printf '#!/bin/sh\nexit 9\n' > "$TEST_TMPDIR/bin/nvidia-smi"
chmod +x "$TEST_TMPDIR/bin/nvidia-smi"
program gpu_timing 'kivi2g32/keys/decode 1000 GB/s' 0
program kivi_test '[       OK ] KiviCudaTest.A (3 ms)' 0

expect 2 "unknown argument '--nonsense'" --nonsense
expect 2 "--pack needs a folder" --pack
expect 0 "Exit status:" --help
expect 3 "no NVIDIA GPU here"

printf '#!/bin/sh\necho "GPU 0: a stand-in"\n' > "$TEST_TMPDIR/bin/nvidia-smi"
expect 0 "1 passed, 0 failed"
expect 0 "kivi2g32/keys/decode 1000 GB/s"

program rope_test '[  FAILED  ] RopeCudaTest.A (3 ms)' 1
expect 1 "1 passed, 1 failed"
# A test that skipped itself has compared nothing, and neither has one that broke down.
program rope_test '[  SKIPPED ] RopeCudaTest.A (0 ms)' 0
expect 1 "1 passed, 1 failed"
program rope_test 'Segmentation fault' 139
expect 1 "1 passed, 1 failed"
rm "$folder/rope_test"
program gpu_timing 'a kernel: error' 1
expect 1 "1 passed, 1 failed"
echo "all as expected"
