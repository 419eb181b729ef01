"""Copies, moves, saves and loads.

``operations`` (what is done to a copy: deepcopy, pickle, ``.to(...)``, ...), ``roundtrips``
(save a model, load it into another), ``overwrite`` (other values first, so that a load which does
nothing shows), ``files`` (what can be read at all), ``checkpoint_files``
(formats on disk) and ``state_dicts`` (a checkpoint as an
inventory). Tested through the assertions:
``tests/unit/test_ties_survive.py``, ``test_roundtrip.py`` and ``test_loaded.py``.
"""
