"""The committed file: its text and where it lies.

``text`` (records <-> text, written whole) and ``paths`` (where files lie, which of them are
stale). Needs neither torch nor pytest: of the rest it knows ``parameters/subject/record`` and
what is raised.
"""

#: The folder of the manifests, beside the test file. It stands here so that a run without one is
#: seen to have none before any of the files above is loaded.
FOLDER = "__params__"
