"""One tensor's bytes: memory, content, relations; knows no names.

* ``overlap``: whether two layouts have a byte in common, in pure integers; ``sweep``: which of
  many have;
* ``memory``: which bytes a tensor of any kind occupies, and which tensors hold them for it;
* ``content``: its bits and its values, or why there are none;
* ``context``: what stands beside the bits: kinds, shapes, numbers of a flatten context;
* ``raw``: ordinary tensors compared where they lie;
* ``identity``: how two tensors are related, and which of many share memory;
* ``cover``: how much of a tensor others hold; ``wide``: copies in a wider dtype;
* ``finite``: whether all values are, in few kernels, and how many are not;
* ``blend``: whether values are a weighted mean of two others;
* ``digest``: content kept small, to prove later that it is unchanged;
* ``sharded``: a DTensor as one tensor; ``call``: what its ranks tell each other in one call;
  ``shards``: what is told of a shard; ``replicas``: what of copies; ``placements``: how it lies;
* ``default_device``: where a tensor is made when nobody says where;
* ``describe``: a tensor, a dtype and a layout in words.

A new kind of wrapper is one reader in ``memory`` and one row in the tests' table of kinds.
"""
