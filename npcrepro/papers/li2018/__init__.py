"""Li et al. 2018: protocol, network, printed numbers, and what its chapter alone needs."""

from npcrepro.protocol.method import Entry

ENTRY = Entry("Li et al. 2018", place=1)
