"""Copies, moves, saves and loads.

``operations`` (what is done to a copy: deepcopy, pickle, ``.to(...)``, ...), ``dcp`` (through a
folder of torch.distributed.checkpoint), ``roundtrips`` (save a model, load it into another),
``overwrite`` (other values first, so that a load which does nothing shows), ``resets`` (what
``reset_parameters()`` leaves of those), ``state_dicts`` (a checkpoint as an inventory),
``renaming`` (its keys as a loader translates them) and ``asked``
(what modules with a way of their own make of its keys).
Tested through the assertions: ``tests/unit/test_ties_survive.py``, ``test_roundtrip.py``,
``test_loaded.py`` and ``test_loaded_hooks.py``.
"""
