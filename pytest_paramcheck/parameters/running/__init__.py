"""What a loss or a block does to parameters, and putting everything back.

* ``reach``: one forward and one backward pass, and who was reached;
* ``gradstate``: what a gradient is: none, zero, not finite, nonzero;
* ``elsewhere``: gradients that are written elsewhere than into ``.grad``; ``grad_places``: and
  those that are said to be;
* ``unreached``: who none of several losses reached, with the reasons;
* ``explain``: why, in a second run; ``trace``: what watches it; ``reasons``: the kinds of
  reason, and the place;
* ``calls``: which methods of its modules a run calls, without which arguments; ``branches``: what
  the source of a method says it takes to come to a place in it, ``ways``: to each place;
* ``operands``: what torch's operations take, and which of it they multiply;
* ``custom_functions``: which custom autograd function runs on the call stack;
* ``untie``: what each use of a tied parameter gives, on a copy without ties;
* ``graph``: the leaves of a graph, those that nobody registered among them;
* ``kept``: what entries were before a block, and what became of them;
* ``watch``: gradients as they come, during a block; ``steps``: what each optimizer step wrote;
  ``magnitude``: how large values are;
* ``alone``: a world of one, where there are more ranks;
* ``counters``: how often an average says that it was updated;
* ``resume``: training with a save and a load in between, and without; ``resume_state``: what of
  its objects is saved, and what is not;
* ``preserve``: all that a run touches, put back: ``held_state`` (what modules hold),
  ``tensor_state`` (one tensor), ``containers`` (the members of built-in ones), ``modes`` (of the
  process), ``randomness`` (random states); ``undo``: the steps, taken whatever interrupts.

What has no tests of its own is tested through the assertions: ``test_left_out`` (``calls``,
``branches``, ``ways``), ``test_reach`` and ``test_trace``
(``custom_functions``, ``operands``, ``elsewhere``), ``test_tied_grads_sum``, ``test_registered``
(``graph``), ``test_unchanged`` and ``test_updated`` (``kept``, ``watch``), ``test_writers``
(``steps``, ``magnitude``), ``test_averaged`` (``counters``), ``test_preserve`` (all that puts
back).
"""
