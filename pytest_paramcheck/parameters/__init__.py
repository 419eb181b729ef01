"""Reading: what a model holds and what happens to it. Knows no expectation, and no pytest.

* ``tensors``: one tensor's bytes;
* ``files``: checkpoints on disk;
* ``subject``: names, and how patterns select them;
* ``running``: what a loss or a block does, and putting back;
* ``saving``: copies, moves, saves and loads.
"""
