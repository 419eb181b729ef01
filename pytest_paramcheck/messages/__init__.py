"""What is said: findings, the errors that carry them, and their text.

``findings`` (one thing that does not hold), ``errors`` (the two errors, ``raise_if``),
``rendering`` (findings -> the text of a failure) and ``wording`` (folded names, counts,
"did you mean"). Nothing here imports torch or pytest, or anything else of ours.
"""
