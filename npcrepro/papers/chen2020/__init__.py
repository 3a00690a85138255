"""Chen et al. 2020: protocol, network, printed numbers, and what its chapter alone needs."""

from npcrepro.protocol.method import Entry

ENTRY = Entry("Chen et al. 2020", place=4)
