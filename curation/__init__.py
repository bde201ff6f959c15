"""From captioned video to sealed shards: sources, plan, screen, scenes, cut, ledger, engine."""

import os

# Read by Ray as it is imported: otherwise, under `uv run`, each worker would resolve the whole environment anew.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
