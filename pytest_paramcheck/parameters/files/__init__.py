"""Checkpoints on disk: what a path holds, mapped where possible, never run.

* ``paths``: whether a path can be read or written as a file at all;
* ``whole``: what is written is written whole or not at all;
* ``damage``: the error for a file that is not what it should be;
* ``checkpoint``: a file, an index of shards or a folder -> the tensors in it;
* ``safetensors_file``: the format with a header, of which only the header is read;
* ``dcp``: folders of torch.distributed.checkpoint, of which the metadata is read first;
* ``shards``: which files a checkpoint in several of them has, and what is in which;
* ``contents``: all that the files hold and all that is wrong with them, for who asks about files;
* ``nested``: tensors below the top level, as they lie in files with more than a model.

Tests: ``tests/unit/test_loaded.py``, ``test_checkpoint_subject.py`` and ``test_checkpoint.py``.
"""
