"""The build of a dataset, from captioned video to sealed shards: sources, plan, screen, scenes, cut, ledger, engine."""

if __name__ != "nextscene.curation":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.curation")
