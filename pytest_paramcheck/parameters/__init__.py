"""Reading a subject: who its parameters are, by which names, and what they share.

Needs torch; knows nothing of pytest, of expectations or of messages. ``inventory`` walks a
subject once, ``select`` picks entries by pattern, ``memory`` and ``overlap`` say which cells
a tensor occupies, ``identity`` says how two tensors are related.
"""
