"""What a paper's protocol is made of: a `Paper` has methods and profiles, and a `Method` is trained in stages.

Everything here is plain data. Networks, losses and optimisers are named by their import path
(``"npcrepro.papers.li2018.network:Li2018Network"``) with their options, so that a configuration can be printed, hashed
and compared without importing torch. :meth:`Component.build` imports them.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import UNSAID

PRINTED = "paper"  # the profile with the printed sizes and schedules


@dataclass(frozen=True)
class Component:
    """A class or function to call later: its import path ``"module:name"`` and its keyword arguments.

    Example:
        >>> Component("fractions:Fraction", {"numerator": 1}).build(denominator=2)
        Fraction(1, 2)
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, *arguments: Any, **more: Any) -> Any:
        """Import the target and call it with ``arguments``, the options and ``more``, which goes before the options."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)(*arguments, **{**self.options, **more})


@dataclass(frozen=True)
class Stage:
    """One stage of training: its loss, its optimiser, its learning rate and when it ends.

    Attributes:
        name: as it appears on learning curves.
        loss: called with ``(logits, label)``, and with the weight of voxels where the data gives one; see
            :mod:`npcrepro.losses.targets`. ``None`` where the network computes its own loss; it is then called with
            ``(image, label)``.
        optimiser: called with the trainable parameters.
        share: part of the method's updates; the shares of its stages add up to 1.
        forward: keyword arguments of the network in this stage (Li 2018 stops at an inner score map).
        trainable: prefixes of the names of the parameters that are trained; empty means all.
        decay_every: multiply the learning rate by ``decay`` after every so many updates; ``None`` for never.
        decays: multiply it so many times, at even distances over the stage.
        plateau: multiply it whenever so many checks in a row have not improved.
        decay: the factor.
        power: besides, the rate falls with every update, by ``(1 - share of the updates done) ** power``, to 0 at the
            end; ``None`` for no such fall.
        monitor: what a check has to improve: ``"validation_loss"`` or ``"validation_dsc"``.
        patience: end the stage when so many checks in a row have not improved, with the weights of the best check;
            ``None`` uses all updates.
        keep_best: use all updates and end with the weights of the best check. A check of the stage before counts too
            if both stages train the same output against the same loss and both keep their best.
        activation: in place of the method's, if the output of this stage needs another one.
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
    power: float | None = None
    monitor: str = "validation_loss"
    patience: int | None = None
    keep_best: bool = False
    activation: str | None = None

    @property
    def keeps_weights(self) -> bool:
        """Whether the stage ends with the weights of its best check."""
        return self.keep_best or self.patience is not None

    def comparable(self, other: Stage) -> bool:
        """Whether two stages judge the same output by the same number and keep the weights that are best by it.

        The best weights of one may then still be the best after the next, which starts from them. A stage that trains
        another output has nothing to be compared with.
        """
        criteria = [(each.loss, each.forward, each.activation, each.monitor) for each in (self, other)]
        return criteria[0] == criteria[1] and self.keeps_weights and other.keeps_weights


@dataclass(frozen=True)
class Use:
    """An earlier method that a method builds on: its run on the same cohort, fold, seed and profile comes first.

    Attributes:
        method: its name; it is of the same paper.
        weights: which of its weights are the initial ones here: a prefix of its parameter names to the prefix of the
            names here; ``{"": ""}`` takes all.
        maps: 0, or its probability maps are input here. Patients for testing get the maps of the run itself. Patients
            for training and validation are split into so many parts, and each part gets its maps from a run that was
            not trained on it, because maps of a network's own training patients are too good. With 1 part they get such
            maps: of a run like the first, on patients that it was trained on.
        averaged: patients for testing get the mean of the maps of the runs of the parts, which are the kind of map that
            training has; only with two or more parts.
    """

    method: str
    weights: Mapping[str, str] = field(default_factory=dict)
    maps: int = 0
    averaged: bool = field(default=False, metadata=UNSAID)


@dataclass(frozen=True)
class Method:
    """One row of a paper's table: the proposed network, a baseline or an ablation.

    Attributes:
        paper, name: ``"li2018"`` and ``"stepwise"``.
        title: for legends of figures.
        summary: one sentence for ``npcrepro list``.
        channels: names of the image channels that the network takes in, in order.
        structures: names of the structures that it segments, in order.
        network: called with ``in_channels`` (images, and maps where the method uses some), ``out_channels``, the
            profile's ``width``, and the options, which may replace any of these.
        data: turns cases into training samples and test inputs; called with the prepared cohort and the profile's
            ``matrix``; see :mod:`npcrepro.sampling.samples`.
        stages: in the order of training.
        augmentation: called with ``(image, label, generator)``, and with the weight of voxels where the data gives one;
            returns image, label and weight. ``None`` for no augmentation.
        activation: turns logits into probabilities: ``"sigmoid"`` for each structure by itself, ``"softmax"`` over
            background and structures, ``"identity"`` if the network gives probabilities.
        threshold: a voxel belongs to its most probable structure if that probability reaches this value; ``None`` if
            it is above that of the background.
        any_structures: segment the structures of the cohort if it lacks one of ``structures``.
        uses: other methods that this one builds on.
        budget: factor on the profile's updates.
        batch_size: images of one update, if not as many as in the profile.
        largest_component: keep only the largest piece of a structure where the patients for validation gain by it, see
            :mod:`npcrepro.runs.validated`.

    Raises:
        InputError: the shares of the stages do not add up to 1, one method is used twice, two methods give maps, maps
            of fewer than two parts are to be averaged, or images are mirrored although structures have a side.
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
    largest_component: bool = False
    batch_size: int | None = field(default=None, metadata=UNSAID)

    def __post_init__(self) -> None:
        for name in ("channels", "structures"):
            if isinstance(names := getattr(self, name), str):
                raise InputError(f"{self.full_name}: {name}={names!r} is one text; a comma is missing: ({names!r},)")
        shares = sum(stage.share for stage in self.stages)
        if self.stages and abs(shares - 1) > 1e-6:
            raise InputError(f"{self.full_name}: the shares of its stages add up to {shares:g}, not to 1")
        if len({use.method for use in self.uses}) < len(self.uses):
            raise InputError(f"{self.full_name} uses the same method twice; one Use may give weights and maps")
        maps = [use.method for use in self.uses if use.maps]
        if len(maps) > 1:
            raise InputError(f"{self.full_name} uses maps of {' and '.join(maps)}; it can take in those of one method")
        single = [use.method for use in self.uses if use.averaged and use.maps < 2]
        if single:
            raise InputError(f"{self.full_name} averages maps of {single[0]}, which takes two or more parts of them")
        sides = [name for name in self.structures if name.endswith(("_L", "_R"))]
        if sides and self.augmentation and self.augmentation.options.get("flip"):
            raise InputError(f"{self.full_name}: mirrored images would exchange {sides[0]} with that of the other side")

    @property
    def full_name(self) -> str:
        """``paper/name``, as on the command line and in records."""
        return f"{self.paper}/{self.name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Import paths of everything that the method is built from and trained with."""
        trained = [component for stage in self.stages for component in (stage.loss, stage.optimiser)]
        components = [self.network, self.data, self.augmentation, *trained]
        return tuple(dict.fromkeys(component.target for component in components if component))

    @property
    def in_channels(self) -> int:
        """Channels of the network's input: images and maps, unless an option of the network says otherwise."""
        maps = len(self.structures) if any(use.maps for use in self.uses) else 0
        return self.network.options.get("in_channels", len(self.channels) + maps)  # type: ignore[no-any-return]

    def input_shape(self, profile: Profile) -> tuple[int, ...]:
        """Shape of one input of the network in a profile: ``(C, H, W)`` or ``(C, D, H, W)``.

        Example:
            >>> from npcrepro.papers.guo2021.protocol import PAPER
            >>> PAPER.method("cscn").input_shape(PAPER.profile("paper"))
            (2, 8, 24, 24)
        """
        # Options of npcrepro.sampling.blocks.BlockData and npcrepro.sampling.patches.VolumePatchData.
        options = self.data.options
        sides = (*([options["slices"]] if "slices" in options else []), *profile.matrix)
        return (self.in_channels, *(options.get("enlarge", 1) * side for side in sides))

    def build(self, width: float) -> Any:
        """The network with random weights; ``width`` is that of the profile."""
        sizes = {
            "in_channels": self.in_channels,
            "out_channels": len(self.structures) + (self.activation == "softmax"),
            "width": width,
        }
        return Component(self.network.target, {**sizes, **self.network.options}).build()

    def on(self, structures: Iterable[str]) -> Method:
        """The method on a cohort with these structures; another one only if it is for ``any_structures``."""
        structures = tuple(structures)
        if not self.any_structures or set(self.structures) <= set(structures):
            return self
        return dataclasses.replace(self, structures=structures)

    def planned(self, plan: Mapping[str, Mapping[str, Any]]) -> Method:
        """The method with what its training patients decided, see :meth:`npcrepro.sampling.samples.Data.plan`.

        Args:
            plan: options of ``"network"`` and ``"data"``, which go before those that are there.
        """
        parts: dict[str, Any] = {}
        for name, options in plan.items():
            component = getattr(self, name)
            parts[name] = Component(component.target, {**component.options, **options})
        return dataclasses.replace(self, **parts)

    def with_patience(self, checks: int | None) -> Method:
        """The method with stages that end when so many checks have not improved, see `Profile.patience`."""
        if checks is None:
            return self
        stages = (
            dataclasses.replace(stage, patience=checks) if stage.keep_best and not stage.power else stage
            for stage in self.stages
        )
        return dataclasses.replace(self, stages=tuple(stages))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Method:
        """The method that was written into a ``config.json``."""

        def with_components(part: Mapping[str, Any], *names: str) -> dict[str, Any]:
            return {**part, **{name: Component(**part[name]) for name in names if part[name]}}

        lists = {name: tuple(data[name]) for name in ("channels", "structures")}
        lists["stages"] = tuple(Stage(**with_components(stage, "loss", "optimiser")) for stage in data["stages"])
        lists["uses"] = tuple(Use(**use) for use in data.get("uses", ()))
        return cls(**{**with_components(data, "network", "data", "augmentation"), **lists})


@dataclass(frozen=True)
class Profile:
    """The size of a run. The architecture is the paper's in every profile.

    Attributes:
        name: smoke, quick, bench, long or paper.
        matrix: size of the network's input in voxels, ``(y, x)`` or ``(z, y, x)``.
        width: factor on the numbers of channels; 1 is the paper's, or our choice where the paper is silent.
        batch_size: images of one update.
        updates: of all stages of a method together; each method multiplies it by its ``budget``.
        check_every: updates between two checks on the validation patients, which are the points of a learning curve.
        folds: how many folds are run by default; ``None`` for all.
        methods: names of the methods that are run by default; empty for the proposed one.
        phantom: options of :func:`npcrepro.cohorts.phantom.write_phantom` for the embedded cohort.
        patience: a stage that keeps its best check ends when so many checks in a row have not improved, so that a run
            says whether it had converged; ``None`` leaves that to the stage. A stage whose rate falls to 0 by a power
            uses all its updates.
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
    patience: int | None = field(default=None, metadata=UNSAID)


@dataclass(frozen=True)
class Paper:
    """A paper as this project runs it. What the paper prints is in its ``paper.yaml``.

    Attributes:
        key: ``"li2018"``, as in the bibliography.
        title: as in the bibliography.
        methods: the first one is the one that the paper proposes.
        profiles: smoke, quick, bench, long and paper.
        split: arguments of :func:`npcrepro.cohorts.folds.split_patients`.
        comparisons: a method to the method that it is compared with, from which it differs in one thing. The other
            methods are compared with the proposed one.
        added: names of methods that this book adds (variants, controls, references of today); the paper prints no
            number of them.
        shortened: by name, the methods that the profiles smaller than ``paper`` train in another way, such as with
            another schedule of the learning rate. ``methods`` has the printed way.
    """

    key: str
    title: str
    methods: tuple[Method, ...]
    profiles: tuple[Profile, ...]
    split: Mapping[str, Any]
    comparisons: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    shortened: Mapping[str, Method] = field(default_factory=dict)

    def at(self, profile: str) -> Paper:
        """The paper with the methods as a profile trains them; an unknown profile is an `InputError`.

        Example:
            >>> from npcrepro.papers.guo2021.protocol import PAPER
            >>> PAPER.at("paper") is PAPER
            True
        """
        size = self.profile(profile)
        if size.name == PRINTED or not (self.shortened or size.patience):
            return self
        methods = (self.shortened.get(method.name, method) for method in self.methods)
        patient = tuple(method.with_patience(size.patience) for method in methods)
        return dataclasses.replace(self, methods=patient, shortened={})

    def method(self, name: str) -> Method:
        """The method ``name``, also as ``paper/name``; an unknown one is an `InputError` with the nearest name."""
        return pick({m.name: m for m in self.methods}, name.removeprefix(f"{self.key}/"), f"method of {self.key}")

    def profile(self, name: str) -> Profile:
        """The profile ``name``; an unknown one is an `InputError` with the nearest name."""
        return pick({p.name: p for p in self.profiles}, name, "profile")


@dataclass(frozen=True)
class Entry:
    """How the book names a paper (``"Li et al. 2018"``), and its place in the order of chapters, from 1."""

    title: str
    place: int

    @property
    def short(self) -> str:
        """``"Li 2018"``."""
        return self.title.replace(" et al.", "")
