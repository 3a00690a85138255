"""What a paper's protocol is made of: methods, stages, profiles, and the settings that a user gives.

Everything here is plain data. A method names its network, losses and optimisers by where they live
(``"npcrepro.papers.li2018.network:Li2018Network"``) and gives their options, so that a whole configuration can be
printed, hashed and compared without importing torch. :meth:`Component.build` does the import when something is really
built.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from npcrepro.base.errors import InputError, pick


@dataclass(frozen=True)
class Component:
    """Something to build later: where it lives (``"module:name"``) and the options it is called with.

    Example:
        >>> Component("fractions:Fraction", {"numerator": 1}).build(denominator=2)
        Fraction(1, 2)
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, *arguments, **more):
        """Import the target and call it with ``arguments``, the options and ``more``."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)(*arguments, **{**self.options, **more})


@dataclass(frozen=True)
class Stage:
    """One stage of training: which output of the network is trained, against which loss, and which weights move.

    Attributes:
        name: as it appears on learning curves.
        share: part of the method's updates that this stage gets; the shares of a method add up to one.
        loss: called with ``(logits, label)``, and with the weight of voxels where the data gives one; see
            :mod:`npcrepro.losses.targets`. ``None`` where the network computes its own loss, when it is called with
            ``(image, label)``.
        optimiser: called with the trainable parameters.
        forward: keyword arguments of the network in this stage (Li 2018 stops at an inner score map).
        trainable: name prefixes of the parameters that move; empty means all of them.
        decay_every: the learning rate is multiplied by ``decay`` each so many updates; ``None`` keeps it.
        decays: the same, so many times spread over the stage, whatever its length.
        plateau: the same, whenever so many checks in a row have not improved.
        decay: the factor.
        monitor: what a check has to improve: ``"validation_loss"`` or ``"validation_dsc"``.
        patience: end the stage when so many checks in a row have not improved, with the weights of the best check;
            ``None`` uses all updates.
        keep_best: end with the weights of the best check, not with the last, after all updates. A check of the stage
            before counts too where both train the same output against the same loss and both keep their best.
        activation: as that of the method, where the score of this stage is another one.
    """

    name: str
    loss: Component | None
    optimiser: Component
    share: float = 1.0
    forward: Mapping[str, Any] = field(default_factory=dict)
    trainable: tuple[str, ...] = ()
    decay_every: int | None = None
    decays: int | None = None
    plateau: int | None = None
    decay: float = 1.0
    monitor: str = "validation_loss"
    patience: int | None = None
    keep_best: bool = False
    activation: str | None = None


@dataclass(frozen=True)
class Use:
    """A method of the same paper whose run comes first, on the same cohort, fold and seed, in the same profile.

    Attributes:
        method: its name.
        weights: prefixes of names of its parameters, each with the prefix they have in the network that takes them
            over; ``{"": ""}`` takes all.
        maps: its probabilities are input; it then segments the structures of the method that uses it. The patients
            tested get them from the run itself. Those that train or validate are split again into so many parts, and
            each part gets them from a run that did not see it: maps of a network's own training patients are better
            than those of new ones. 0 for no maps.
    """

    method: str
    weights: Mapping[str, str] = field(default_factory=dict)
    maps: int = 0


@dataclass(frozen=True)
class Method:
    """One row of a paper's table: the proposed network, a baseline or an ablation.

    Attributes:
        paper, name: together the name used everywhere, ``paper/name``.
        title: what the legend of a figure says.
        summary: one sentence for ``npcrepro list``.
        channels: names of the image channels that go in, in order.
        structures: names of the structures that come out, in order.
        network: called with ``in_channels`` (of images, and of maps where the method uses some), ``out_channels``, the
            profile's ``width``, and the options, which may replace any of these.
        data: how cases become training samples and test inputs; called with the prepared cohort and the profile's
            ``matrix``; see :mod:`npcrepro.sampling.samples`.
        augmentation: called with ``(image, label, generator)``, and with the weight of voxels where the data gives one;
            returns image, label and weight in this order. ``None`` for none.
        stages: in the order of training.
        activation: what makes probabilities of logits: ``"sigmoid"`` for each structure by itself, ``"softmax"`` over
            background and structures, ``"identity"`` where the network gives them.
        threshold: a voxel belongs to its most probable structure when that probability reaches this value; ``None``
            means when it is more probable than background.
        any_structures: on a cohort without all the ``structures``, segment those that it has instead.
        uses: runs of other methods that this one builds on; one of them at most gives maps.
        budget: factor on the profile's updates.

    Raises:
        InputError: stages whose shares do not add up to one, a method used twice, maps of two methods, and mirrored
            images with structures of a side.
    """

    paper: str
    name: str
    title: str
    summary: str
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    network: Component
    data: Component
    stages: tuple[Stage, ...]
    augmentation: Component | None = None
    activation: str = "sigmoid"
    threshold: float | None = 0.5
    any_structures: bool = False
    uses: tuple[Use, ...] = ()
    budget: float = 1.0

    def __post_init__(self):
        shares = sum(stage.share for stage in self.stages)
        if self.stages and abs(shares - 1) > 1e-6:
            raise InputError(f"{self.full_name}: the shares of its stages add up to {shares:g}, not to 1")
        if len({use.method for use in self.uses}) < len(self.uses):
            raise InputError(f"{self.full_name} uses the same method twice; one Use may give weights and maps")
        maps = [use.method for use in self.uses if use.maps]
        if len(maps) > 1:
            raise InputError(f"{self.full_name} uses maps of {' and '.join(maps)}; it can take in those of one method")
        sides = [name for name in self.structures if name.endswith(("_L", "_R"))]
        if sides and self.augmentation and self.augmentation.options.get("flip"):
            raise InputError(f"{self.full_name}: mirrored images would exchange {sides[0]} with that of the other side")

    @property
    def full_name(self) -> str:
        """``paper/method``, the name used in records, figures and on the command line."""
        return f"{self.paper}/{self.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the classes live that the method is made of and trained with."""
        trained = [component for stage in self.stages for component in (stage.loss, stage.optimiser)]
        components = [self.network, self.data, self.augmentation, *trained]
        return tuple(dict.fromkeys(component.target for component in components if component))

    @property
    def in_channels(self) -> int:
        """Channels of the network's input: of the images and of maps, unless the network's options say otherwise."""
        maps = len(self.structures) if any(use.maps for use in self.uses) else 0
        return self.network.options.get("in_channels", len(self.channels) + maps)

    def input_shape(self, profile: Profile) -> tuple[int, ...]:
        """Shape of one sample that the network takes in at a profile's matrix: ``(C, H, W)`` or ``(C, D, H, W)``.

        Example:
            >>> from npcrepro.papers.guo2021.protocol import PAPER
            >>> PAPER.method("cscn").input_shape(PAPER.profile("paper"))
            (2, 8, 24, 24)
        """
        # An option of npcrepro.sampling.blocks.BlockData.
        factor = self.data.options.get("enlarge", 1)
        return (self.in_channels, *(factor * side for side in profile.matrix))

    def build(self, width: float):
        """The network at a width, with random weights."""
        sizes = {
            "in_channels": self.in_channels,
            "out_channels": len(self.structures) + (self.activation == "softmax"),
            "width": width,
        }
        return Component(self.network.target, {**sizes, **self.network.options}).build()

    def on(self, structures: Iterable[str]) -> Method:
        """The method for a cohort with these structures (see ``any_structures``)."""
        structures = tuple(structures)
        if not self.any_structures or set(self.structures) <= set(structures):
            return self
        return dataclasses.replace(self, structures=structures)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Method:
        """The method that was written into a ``config.json``."""
        stages = tuple(
            Stage(**{**stage, **{part: Component(**stage[part]) for part in ("loss", "optimiser") if stage[part]}})
            for stage in data["stages"]
        )
        parts = {name: Component(**data[name]) for name in ("network", "data", "augmentation") if data[name]}
        names = {name: tuple(data[name]) for name in ("channels", "structures")}
        uses = tuple(Use(**use) for use in data.get("uses", ()))
        return cls(**{**data, **parts, **names, "stages": stages, "uses": uses})


@dataclass(frozen=True)
class Profile:
    """How big a run is. The architecture is the paper's in every profile.

    Attributes:
        matrix: size of the network's input, ``(y, x)`` or ``(z, y, x)``.
        width: factor on the channel numbers of the network; 1 is the paper's, or our choice where it is silent.
        batch_size: images of one update.
        updates: updates of all stages of a method together, times the method's ``budget``.
        check_every: updates between two looks at the validation patient; also the spacing of the learning curve.
        folds: how many folds to run when the user does not say; ``None`` means all.
        methods: which methods to run when the user does not say; empty means the proposed one.
        phantom: options of :func:`npcrepro.cohorts.phantom.write_phantom` for the embedded cohort.
    """

    name: str
    matrix: tuple[int, ...]
    width: float
    batch_size: int
    updates: int
    check_every: int
    folds: int | None
    methods: tuple[str, ...]
    phantom: Mapping[str, Any]


@dataclass(frozen=True)
class Paper:
    """A paper as this project runs it. What the paper prints is in the YAML file of the same name.

    Attributes:
        key: ``li2018``, also that of the paper in the bibliography.
        title: as in the bibliography.
        methods: the first is the one that the paper proposes.
        profiles: smoke, quick, bench, paper.
        split: arguments of :func:`npcrepro.cohorts.folds.split_patients`.
        comparisons: method to the method that it is compared with, so that each comparison changes one thing; a method
            that is not named is compared with the proposed one.
        added: names of methods of which the paper prints no number and which this book adds: variants, controls and
            references of today.
    """

    key: str
    title: str
    methods: tuple[Method, ...]
    profiles: tuple[Profile, ...]
    split: Mapping[str, Any]
    comparisons: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()

    def method(self, name: str) -> Method:
        """The method called ``name`` (with or without ``paper/``); an unknown one is an error naming the near miss."""
        return pick({m.name: m for m in self.methods}, name.removeprefix(f"{self.key}/"), f"method of {self.key}")

    def profile(self, name: str) -> Profile:
        """The profile called ``name``; an unknown one is an error naming the near miss."""
        return pick({p.name: p for p in self.profiles}, name, "profile")


@dataclass(frozen=True)
class Entry:
    """How pages name a paper.

    Attributes:
        title: ``"Li et al. 2018"``.
        place: in the book, counted from 1.
        letter: with which the keys of its checks begin (:mod:`npcrepro.findings.audit`); empty if there are none.
    """

    title: str
    place: int
    letter: str = ""

    @property
    def short(self) -> str:
        """``"Li 2018"``."""
        return self.title.replace(" et al.", "")
