"""The commands a person runs: parse, wire, call."""

if __name__ != "nextscene.pipelines":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.pipelines")
