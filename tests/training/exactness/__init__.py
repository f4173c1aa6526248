"""The exactness matrix: the training step against one plain process, over all that may change how it is computed.

`factors` says which cases there are, `case_batch` and `engines` make them, `twin` is the plain process, `measure`
compares, `broken` holds steps that are wrong on purpose, `extras` the rows beyond the product (bf16, hpZ and others),
`matrix` answers lists of questions on the ranks of one process group, `table` writes RESULTS.md, `__main__` is the
command.
"""
