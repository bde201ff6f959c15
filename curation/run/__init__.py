"""A run of the pipeline: preparation, the engine on Ray, and the judge actor.

A resumed run is an ordinary run that finds work already done. The steps, in order:

1. `run.build` opens the source and OUT (`locations`) and takes the lock.
2. `prepare` compares the recorded settings with those of this run (`existing_plan`) and restores a damaged plan
   (`restore_plan`).
3. `sealing.repair` undoes damaged commits, and `sealing.committed` reads what is done.
4. `sealing.remaining` lists the work that is left; `sealing.retry` lists the work that a retry repeats.
5. `engine` does that work on Ray and quarantines clips that kill their worker (`crash_counts`).
6. `curation.summary` writes the manifest and the summary.
"""
