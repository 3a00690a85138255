"""The organs of one patient in anatomical coordinates, in the order in which they are painted."""

from __future__ import annotations

from npcrepro.cohorts.phantom.airways import pharynx, sinuses
from npcrepro.cohorts.phantom.muscles import glands, head_muscles, neck_muscles
from npcrepro.cohorts.phantom.patient import Patient
from npcrepro.cohorts.phantom.shapes import Organ
from npcrepro.cohorts.phantom.skull import brain, jaws, orbits, spine
from npcrepro.cohorts.phantom.vessels import nodes, vessels


def organs(p: Patient, open_side: int) -> list[Organ]:
    """All organs inside the head; the airway stays open on `open_side`."""
    for region in (neck_muscles, head_muscles, glands, brain, spine, jaws, orbits, sinuses):
        region(p)
    pharynx(p, open_side)
    vessels(p)
    nodes(p)
    return p.organs
