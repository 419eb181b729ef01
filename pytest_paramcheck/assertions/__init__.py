"""The public ``assert_*``: read the subject, run the check, raise what it found.

An assertion computes nothing itself. Each sets ``__tracebackhide__`` so that pytest's
traceback ends at the user's line.
"""
