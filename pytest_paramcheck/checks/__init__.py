"""One file per family of invariants: pure functions, inventory + expectation -> findings.

A check never walks a module itself, raises nothing (but usage errors) and prints nothing.
"""
