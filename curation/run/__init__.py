"""A run of the pipeline: preparation, the engine on Ray, and the judge beside it."""
