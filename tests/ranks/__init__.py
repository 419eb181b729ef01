"""Tests on real ranks: several processes each, so only their own tox environment runs them."""
