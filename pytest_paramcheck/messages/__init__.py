"""What is said: findings, the errors that carry them, and their text.

``findings`` (one thing that does not hold), ``errors`` (the two errors, ``raise_if``),
``rendering`` (findings -> the text of a failure) with ``headline`` (its first line), ``rollup``
(many findings as few rows) and ``folding`` (names that differ by numbers as one), ``wording``
(counts, "did you mean", what is escaped) and ``functions`` (whether one of the user's can be
called). Nothing here imports torch or pytest, or anything else of ours.
"""
