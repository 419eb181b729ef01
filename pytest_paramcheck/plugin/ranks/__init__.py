"""Tests marked ``ranks=N``: the same test on N processes that form a torch.distributed group.

A rank is a whole pytest session in a process of its own, as a worker of xdist is one. This
process keeps pytest's protocol for the item, asks the ranks to run it, and puts one report in
place of theirs. Nothing here is loaded, and nothing started, where a run has no such test.

* ``numbers.py``: how many ranks a test supports and how many were chosen (always loaded);
* ``here.py``: whether this process is a rank (always loaded);
* ``parent.py``: the hooks of the process that the user started;
* ``debugging.py``: the same where a debugger was asked for, and this process is rank 0;
* ``pools.py``: the pools of a run, and what ranks send that is not about one test;
* ``items.py``: what a run has to do on its ranks, and what comes next;
* ``start.py``: what a rank is started with: options, arguments, environment;
* ``pool.py``: the processes, what they are told and what they send;
* ``outcome.py``: what came of one test on its ranks;
* ``rank.py``: the process of a rank, and the plugin of its session;
* ``parts.py``: what a rank's test says of its subtests;
* ``watcher.py``: its thread that goes on while it waits;
* ``group.py``: the process group that a test finds;
* ``output.py``: what a rank writes outside of pytest;
* ``where.py``: where a rank is that does not answer;
* ``torchrun.py``: the hooks of a rank that torchrun has started;
* ``collected.py``: what ranks did not collect alike;
* ``merge.py``: one report for each phase, made of all ranks' reports;
* ``texts.py``: the failures of this process's own, as pytest shows a failure.

Tests: ``tests/unit/test_rank_harness.py``, ``tests/unit/test_rank_reports.py``,
``tests/unit/test_where.py``, ``tests/integration/test_ranks.py``; in ``tests/ranks`` what only
several processes show.
"""
