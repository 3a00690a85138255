"""A value that masks have beside 0 and 1."""

from __future__ import annotations

# Fills the channel of a structure that nobody drew in a case, which is not the same as its not being there. A label is
# 0 or 1 otherwise.
NOT_CONTOURED = 255
