"""Ray, supervised: the cluster of a run, and a process of its own for the work on it."""
