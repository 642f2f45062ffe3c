#!/bin/bash
# libkedge.so shows kedge_* and nothing else: it must not meet other versions of our libraries in
# the process that loads it.
set -euo pipefail
library=$1
header=$2
symbols=$(nm --dynamic --defined-only --format=posix "$library" | awk '{print $1}' | sed 's/@.*//')
foreign=$(grep -v '^kedge_' <<<"$symbols" || true)
if [[ -n $foreign ]]; then
  echo "libkedge.so exports what it should hide (client/c/kedge.lds):" >&2
  head -20 <<<"$foreign" >&2
  exit 1
fi
# And all that the header promises.
declared=$(grep -oE '\bkedge_[a-z_0-9]+\(' "$header" | tr -d '(' | sort -u)
missing=$(comm -23 <(grep -vxE 'kedge_[a-z_]*_$' <<<"$declared") <(sort -u <<<"$symbols"))
if [[ -n $missing ]]; then
  echo "client/c/kedge.h declares what libkedge.so lacks: $missing" >&2
  exit 1
fi
echo "$(wc -l <<<"$symbols") symbols, all of them kedge_*"
