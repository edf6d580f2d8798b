#!/usr/bin/env bash
# mypy over the package in its installed layout: agents/ and envs/ linked to where they are imported from.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/rlkit"
ln -s "$root"/rlkit/* "$tree/rlkit/"
ln -s "$root/agents" "$root/envs" "$tree/rlkit/"
cd "$tree"
"${PYTHON:-python}" -m mypy --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p rlkit "$@"
