"""From settings to the runs that they ask for."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import as_data, check_writable, sha256_of
from npcrepro.base.wording import in_words
from npcrepro.cohorts.check import check
from npcrepro.cohorts.cohort import Cohort
from npcrepro.cohorts.folds import Fold, inner_folds, split_patients
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import fingerprint, prepared_folder
from npcrepro.protocol.method import Method, Paper, Profile, Use
from npcrepro.protocol.settings import Settings
from npcrepro.runs.records import Configuration


def outline(cohort: Cohort, folder: Path) -> Cohort:
    """A cohort with its fingerprint and the folder where :func:`prepare` puts it; no image is decoded.

    Nothing is written where ``folder`` is not there or belongs to somebody else, so that one can look at any runs.
    """
    digest = fingerprint(cohort, cache=folder / "fingerprints.json" if os.access(folder, os.W_OK) else None)
    return replace(cohort, fingerprint=digest, folder=prepared_folder(folder, cohort.name, digest))


def plan(paper: Paper, settings: Settings, cohort: Cohort) -> list[Configuration]:
    """The runs that settings ask for: methods x seeds x folds. :func:`in_order` adds the runs that these use.

    Raises:
        InputError: a method, profile or fold that is not there, too few patients, or a method that is named and cannot
            learn structures that overlap. Where the profile names it, it is left out with a warning.
    """
    paper, profile = paper.at(settings.profile), paper.profile(settings.profile)
    names = settings.methods or profile.methods or (paper.methods[0].name,)
    methods = [paper.method(name).on(cohort.structures) for name in names]
    if unfit := [method for method in methods if _has_no_bound(method, cohort)]:
        told = (
            f"{in_words([method.full_name for method in unfit])} cannot learn cohort {cohort.name}: its structures "
            "overlap, and where they do the loss has no lower bound; leave out structures that lie inside others"
        )
        if settings.methods:
            raise InputError(told)
        warnings.warn(told, stacklevel=2)
        methods = [method for method in methods if method not in unfit]
    split = split_patients(cohort, **paper.split)
    there = {str(fold.number): fold for fold in split.folds}
    folds = [pick(there, str(number), f"fold of cohort {cohort.name}") for number in settings.folds]
    split_sha256 = split.sha256
    return [
        configure(paper, method, profile, cohort, split_sha256, fold, seed)
        for method in methods
        for seed in settings.seeds
        for fold in folds or split.folds[: profile.folds]
    ]


def _has_no_bound(method: Method, cohort: Cohort) -> bool:
    """Whether the loss has a background whose share is below 0 where structures overlap, as they do in this cohort."""
    codes = [code for name in method.structures for code in cohort.structures.get(name, ())]
    softmax = any(stage.loss and stage.loss.target.endswith(":DeepSupervisionLoss") for stage in method.stages)
    return softmax and len(set(codes)) < len(codes)


def configure(
    paper: Paper, method: Method, profile: Profile, cohort: Cohort, split_sha256: str, fold: Fold, seed: int
) -> Configuration:
    """The run of a method on a fold, together with the runs of other methods that it uses."""

    def on(method: Method, fold: Fold, *inner: int) -> Configuration:
        used = {}
        for use in method.uses:
            other = paper.method(use.method).on(cohort.structures)
            if use.maps and other.structures != method.structures:
                one, another = (f"{m.full_name} ({', '.join(m.structures)})" for m in (method, other))
                raise InputError(f"{one} takes in maps of {another}: their structures have to be the same")
            parts = enumerate(_parts(fold, use))
            used[use.method] = (on(other, fold, *inner), *(on(other, part, *inner, number) for number, part in parts))
        # What a part uses belongs to the part: "0.1" is part 1 of the patients of part 0.
        about = as_data(fold) | ({"inner": ".".join(map(str, inner))} if inner else {})
        return Configuration(method, profile, cohort.name, cohort.fingerprint, split_sha256, about, seed, used)

    return on(method, fold)


def _parts(fold: Fold, use: Use) -> list[Fold]:
    """Folds of the runs that make the maps of the patients who train and validate, and where asked of those tested."""
    if use.maps == 1:
        return [replace(fold, test=tuple(sorted((*fold.train, *fold.validation))))]
    parts = inner_folds(fold, use.maps) if use.maps else []
    return [replace(part, test=tuple(sorted((*part.test, *fold.test)))) for part in parts] if use.averaged else parts


def in_order(wanted: Iterable[Configuration]) -> list[Configuration]:
    """These runs and all that they use, each once and behind what it uses."""
    found: dict[str, Configuration] = {}

    def add(configuration: Configuration) -> None:
        for needed in configuration.needs:
            add(needed)
        found.setdefault(configuration.sha256, configuration)

    for configuration in wanted:
        add(configuration)
    return list(found.values())


def open_cohort(paper: Paper, settings: Settings) -> Cohort:
    """The cohort of the settings, or the embedded phantom at the profile's size, made on first use."""
    check_writable(Path(settings.runs))
    if settings.cohort != "phantom":
        return read_cohort(Path(settings.cohort))
    options = paper.profile(settings.profile).phantom
    root = phantom_folder(paper, settings)
    if not (root / "dataset.json").exists():
        from npcrepro.cohorts.phantom import write_phantom

        try:
            write_phantom(root, **options)
        except (InputError, OSError):
            # Another process may have put the same folder into place in the meantime.
            if not (root / "dataset.json").exists():
                raise
    return read_cohort(root)


def phantom_folder(paper: Paper, settings: Settings) -> Path:
    """Where the embedded phantom of a profile lies, or will lie."""
    options = as_data(paper.profile(settings.profile).phantom)
    made_from = sha256_of([options, code_sha256(["npcrepro.cohorts.phantom:write_phantom"])])
    return Path(settings.runs) / "cohorts" / f"phantom-{made_from[:8]}"


def refuse_defects(cohort: Cohort, methods: Iterable[Method]) -> None:
    """Refuse a cohort with any defect, warnings included, and channels or structures that another would stand in for.

    Raises:
        InputError: naming the first.
    """
    defects = check(cohort.root)
    if defects:
        first = defects[0]
        raise InputError(
            f"{cohort.root} has {len(defects)} defects, the first in {first.file}: {first.problem} ({first.value}); "
            f"see `npcrepro data check {cohort.root}`"
        )
    for method in methods:
        for wanted, there in ((method.channels, cohort.channels), (method.structures, tuple(cohort.structures))):
            missing = set(wanted) - set(there)
            if missing:
                raise InputError(f"cohort {cohort.name} has {', '.join(there)} but no {', '.join(sorted(missing))}")
