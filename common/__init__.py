"""Shared by all rooms: errors, storage, processes, locks, Ray. It imports nothing about clips, judges or models."""

if __name__ != "nextscene.common":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.common")
