"""A run of the pipeline: preparation, the engine on Ray, and the judge beside it.

A resumed run is an ordinary run that finds work done. In order:

1. `run.build` opens source and OUT (`locations`) and takes the lock.
2. `prepare` compares the recorded settings with those of this run (`existing_plan`) and restores a damaged plan
   (`restore_plan`).
3. `sealing.repair` takes back damaged commits, and `sealing.committed` reads what is done.
4. `sealing.remaining` lists what is left; `sealing.retry` lists what a retry does again.
5. `engine` does that work on Ray and quarantines clips that kill their worker (`crash_counts`).
6. `curation.summary` writes manifest and summary.
"""
