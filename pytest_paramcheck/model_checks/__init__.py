"""The functions of the whole-model checks; ``registry.py`` gathers them.

Each takes a :class:`~pytest_paramcheck.model_checks.run.CaseRun` and raises what the assertion
raises, or :class:`NothingToCheck`. ``case.model`` is shared by all checks and changed by none.
"""
