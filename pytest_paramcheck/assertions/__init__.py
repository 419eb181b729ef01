"""The public ``assert_*``: read the subject, run the check, raise what it found.

An assertion computes nothing itself. Each sets ``__tracebackhide__`` so that pytest's
traceback ends at the user's line.

* ``ties``: tied, untied, distinct, ties, same_ties, ties_survive;
* ``gradients``: grads_none, grads_present, grads_finite, grad_norm;
* ``reach``: grads_reach, tied_grads_sum;
* ``flags``: frozen, trainable; ``blocks``: unchanged, changed, updated; ``averaged``: averaged;
  ``block``: what those have in common;
* ``optimizer``: optimizer_covers, optimizer_state, param_groups;
* ``structure``: shapes, dtypes, devices, param_count, materialized; ``registered``: registered;
* ``values``: finite, same_values; ``init``: init, init_complete;
* ``checkpoints``: roundtrip, loaded, checkpoint; ``resumes``: resumes; ``manifests``: manifest;
* ``sharding``: replicated, placements;
* ``verdict``: one verdict on all ranks, where a subject is spread over them.
"""
