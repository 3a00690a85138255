"""Guo et al. 2021: protocol, network, printed numbers, and what its chapter alone needs."""

from npcrepro.protocol.method import Entry

ENTRY = Entry("Guo et al. 2021", place=3)
