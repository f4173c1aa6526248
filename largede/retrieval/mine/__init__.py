"""Hard negatives: passages that a retriever finds for a query and that do not answer it.

settings    which ranks of which lists, how many, and what a negative has to pass
sources     where training pairs come from: files of pairs, folders in BEIR format, sets of shards
pool        the passages that may become negatives, and what is known of them
lists       the ranked lists of one window of queries, dense and BM25
choose      from the lists of one pair to its negatives, every rejected candidate counted by reason
stages      the whole, resumable: pool, encode, search, BM25, choose, publish
"""
