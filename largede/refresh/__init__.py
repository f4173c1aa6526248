"""Hard negatives mined anew beside a run, from its newest checkpoint: see README.md of largede/retrieval."""
