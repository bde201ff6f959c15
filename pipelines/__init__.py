"""The commands a person runs: parse, wire, call."""
