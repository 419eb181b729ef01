"""Names: what a subject holds, under which names, and how patterns select it.

* ``reading``: one walk of a subject; ``inventory``: its entries, each with all of its names;
* ``walk``: the modules of a model, by every name or once; ``wrappers``: names
  that a wrapper put in front of the user's own; ``fsdp``: parameters that one gathers;
* ``sharded_alike``: two subjects, the whole tensors of one sharded as the other's;
* ``names``: many names, to be searched; ``patterns``: what a pattern matches;
* ``states``: selecting by state; ``parts``: some elements of what a pattern matches, by an index,
  ``elements``: those of an entry, and what is left beside them;
* ``select``: the entries that patterns pick, and what an assertion can look at at all;
* ``declared``: patterns that map to expectations;
* ``ties``: tie groups, the names that mean one, several subjects side by side;
* ``parametrized``: weights that a module computes from other parameters;
* ``record``: what is noted of one name, without torch; ``records``: of all names;
* ``conventions``: what modules promise by what they are; ``own_methods``: which of their classes
  copy, move, save or load in a way of their own;
* ``optimizers``: an optimizer's slots and its saved state; ``leaves``: what a state is made of;
* ``namesakes``: which name of a copy stands for which of the model;
* ``hidden``: tensors that no registration leads to; ``attributes``: which modules to search;
* ``held``: where a Python object stores things; ``copies``: a deep copy, of scripted modules too.
"""
