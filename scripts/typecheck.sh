#!/usr/bin/env bash
# mypy over the package as it is imported; rlkit/agents and rlkit/envs are links.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python}" -m mypy -p rlkit "$@"
