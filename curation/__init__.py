"""From captioned video to sealed shards: sources, plan, screen, scenes, cut, ledger, engine."""
