"""Checkpoints that any number of ranks can write and any other number can read.

A checkpoint is a folder `step-00001000`:

    slices-00000-of-00002.safetensors   what rank 0 holds of every parameter: `master/NAME`, for AdamW its moments too
    shared.safetensors                  Adafactor's row and column vectors, the same on every rank
    frozen.safetensors                  parameters that are not trained
    state.json                          step, recipe, versions, size and SHA-256 of every file above, and its own

Each slice file says in its header where its slices stand in the whole parameter, so a reader takes from every file
just the range it needs. The folder is written under a temporary name and renamed when every rank's files are on disk;
`state.json` comes last. A folder without it, or with a file that differs from it, is not a checkpoint. Tensors are
safetensors and the rest is JSON: nothing in a checkpoint is ever unpickled.

There is no random state in it, because nothing in a run draws from one that lasts. The order of pairs is a function of
(data, recipe, step), first weights of (seed, name), and dropout is seeded anew at each step from (seed, step, rank). So
step, seed and skipped batches say it all, and on as many ranks every bit comes again. On another number of ranks other
units are dropped: each rank still draws from a seed of its own, so the masks are as independent and the expected
gradient is the same, but the losses are no longer those of the uninterrupted run, only of an equally good one.
"""
