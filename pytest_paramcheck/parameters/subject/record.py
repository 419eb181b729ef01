"""What is noted of one name of a subject: shape, dtype, role and tie, in words.

``inventory.records`` makes records of a subject, the manifest's file keeps them, and checks
compare two lists of them. Strings and flags only, no torch: whoever only reads a manifest
needs no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The words for what an entry is, and whether it is (a parameter, trainable, persistent).
ROLES = {
    ("trainable",): (True, True, True),
    ("frozen",): (True, False, True),
    ("buffer",): (False, False, True),
    ("buffer", "not-persistent"): (False, False, False),
    ("trainable", "buffer"): (False, True, True),
    ("trainable", "buffer", "not-persistent"): (False, True, False),
}
_ROLE_OF = {facts: words for words, facts in ROLES.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """What is noted of one name: everything but device and values.

    ``tied_to`` is the first name of the same parameter, where this is a later one.
    """

    name: str
    shape: str
    dtype: str
    parameter: bool = True
    trainable: bool = True
    persistent: bool = True
    tied_to: str = ""

    @property
    def role(self) -> str:
        """``trainable``, ``frozen``, ``buffer`` or ``buffer not-persistent``."""
        return " ".join(_ROLE_OF[self.parameter, self.trainable, self.persistent])
