"""Pure functions, what was read + an expectation -> findings; a file bears its assertion's word.

A check never walks a module itself, raises nothing (but usage errors) and prints nothing.

* ``ties``: declared groups and exact ones; ``untied``: nothing shared, nothing equal;
  ``between``: nothing of one subject in another; ``built_anew``: nor of one build in the next;
  ``shared``: how to part what is one; ``same_ties``: the same before and after;
  ``ties_survive``: who broke them on the way; ``moves``: what a move takes or leaves;
  ``own_methods``: what was lost where a class copies, moves or saves in its own way;
* ``gradients``: none, zero, nonzero, norms; ``reach``: who was not reached, and why;
  ``reach_of_a_case``: and how that is declared;
  ``broken_at``: from which operation on not finite;
  ``tied_grads_sum``: a tied gradient against its uses' sum; ``shares``: how many are enough;
* ``flags``: frozen and trainable; ``blocks``: what a block changed; ``writers``: who did;
  ``averaged``: a running average;
* ``optimizer``: who is covered; ``masters``: through which float32 copy; ``param_groups``: with
  what; ``optimizer_state``: state that fits;
  ``optimizer_sharing``: state in memory of its own; ``optimizer_saved``: as it was saved;
  ``optimizer_zero``: state spread over ranks;
* ``shapes``: sizes and symbols; ``structure``: dtypes, devices, counts, materialization;
  ``registered``: nothing hidden;
* ``finite``: no NaN, no infinity; ``same_values``: two subjects value by value (``rearranged``: the
  same in another order, ``rounded``: or one side cut to a narrower dtype), ``tolerance``: or
  nearly; ``values``: conditions, ``orthogonality``: one of them; ``readable``: one plain tensor;
* ``init``: distributions, of the values in ``init_values``, with the tests of ``statistics`` and
  ``repeats``; ``init_like``: what the user's own function draws; ``init_complete``: runs a factory
  on poisoned memory;
* ``loaded``: a checkpoint against a model, ``loaded_values``: entry by entry,
  ``loaded_names``: under other names, ``loaded_own``: in a module's own way;
  ``roundtrip``: what came back of a save; ``resume``: training that goes on from one;
  ``checkpoint``: a file by itself;
* ``replicated``: the same on every rank; ``placements``: sharded as declared;
* ``ranks``: what each rank found -> what holds of the whole; ``wrapped``: a wrapped model's
  gradients and steps;
* ``conventions``: padding rows, norms, heads that a config ties, what a reset leaves;
* ``manifest``: two lists of records; ``renames``: which removal and addition are one.
"""
