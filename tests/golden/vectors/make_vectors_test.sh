#!/usr/bin/env bash
# Compares the vectors of the checkout with what the script makes. Bazel's copy of this file is a
# link to the checkout.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
exec "$here/../make_vectors.py" --check
