# Runs -> records -> published numbers -> notebooks -> book.
#
#   snakemake --cores 2 book                                      everything on the embedded phantom, profile quick
#   snakemake --cores 2 records --config papers=li2018 seeds=0,1  finished runs alone
#   snakemake --dry-run records --config profile=paper            what the whole sweep would be
#   snakemake npc-mri-277 --profile profiles/laptop               a public set, from the download to its books
#   snakemake segrap2023 --profile profiles/laptop                the same, once you have its images
#
# --config takes papers, cohort, profile, methods, folds, seeds, device, runs, modalities: those of `npcrepro run`.
#
# What a run is, where it lies and what it waits for comes from npcrepro.runs.sweep, which `npcrepro run` and
# `npcrepro status` share: a run that one of them has finished is finished for all.

import sys
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

import npcrepro
from npcrepro.book.build import book, notebooks
from npcrepro.protocol import registry
from npcrepro.runs import fit, sweep

OUT = "_build"
NPCREPRO = f"{sys.executable} -m npcrepro.cli.commands"
ASKED, SETTINGS = sweep.from_config(config)
RUNS, ON_GPU = SETTINGS.runs, SETTINGS.device == "cuda"
# Which variant of a public set has the images of which papers. Each variant is a cohort, and has a book of its own.
PUBLIC = {
    "npc-mri-277": {"CET1-alone": "li2018,guo2021", "CET1": "chen2020"},
    "segrap2023": {"oars": "luo2020", "targets": "xue2020"},
}
COHORTS = f"{RUNS}/cohorts"
# Where a public set and its variant become a book.
PLACES = {f"{OUT}/{key}/{variant}": (key, variant) for key, variants in PUBLIC.items() for variant in variants}


def newest(*folders):
    """The file that changed last: one input that stands for all of them."""
    files = chain.from_iterable(Path(folder).rglob("*.*") for folder in folders)
    sources = [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    return str(max(sources, key=lambda path: path.stat().st_mtime))


def of_variant(key, variant, cohort=""):
    """Papers and settings of a variant of a public set: those of --config on its cohort, at the profile paper by
    default."""
    given = {"profile": "paper"} | config
    papers, settings = sweep.from_config(given | {"papers": PUBLIC[key][variant]})
    methods = tuple(name for name in settings.methods if "/" not in name or name.split("/")[0] in papers)
    return papers, replace(settings, methods=methods, cohort=cohort or f"{COHORTS}/{key}/{variant}")


def plan_of(key, variant):
    """What `npcrepro plan` is asked for, before there is a cohort."""
    papers, settings = of_variant(key, variant, f"{key}/{variant}")
    options = sweep.Sweep(settings={papers[0]: settings}).options(papers[0])
    asked = f"{NPCREPRO} plan {' '.join(papers[1:])} {options}"
    # Where the GPU is that will train, a few updates tell the hours. A node that only sends out jobs may have none.
    return f"{{ {asked} --measure || {asked}; }}" if ON_GPU else asked


@cache
def sweep_of(out):
    """The runs behind the book in a folder. Those of a public set are known once there is a cohort."""
    if out in PLACES:
        key, variant = PLACES[out]
        checkpoints.cohort.get(key=key, variant=variant)
        return sweep.make_sweep(*of_variant(key, variant))
    return sweep.make_sweep(ASKED, SETTINGS, images=not workflow.output_settings.dryrun)


def known_sweeps():
    """All sweeps whose cohort is there, one after the other."""
    for place, (key, variant) in PLACES.items():
        if Path(COHORTS, key, variant, "dataset.json").exists():
            yield sweep_of(place)
    yield sweep_of(OUT)


def sweep_with(run):
    return next(each for each in known_sweeps() if run in each.runs)


def source_of(prepared):
    """The cohort that a prepared copy is made of."""
    found = ((each.cohorts[paper], each.sources[paper]) for each in known_sweeps() for paper in each.sources)
    return next(source for cohort, source in found if cohort.folder.name == prepared)


def cohort_of(out):
    """The file that a book of a public set waits for."""
    return ["/".join((COHORTS, *PLACES[out], "dataset.json"))] if out in PLACES else []


def published(out, paper):
    found = sweep_of(out)
    return f"{out}/results/{paper}-{found.cohorts[paper].name}-{found.settings[paper].profile}/runs.json"


def wanted(out, paper):
    return [run for run in sweep_of(out).runs if run in sweep_of(out).wanted and run.startswith(f"{paper}/")]


def all_published(out):
    return [published(out, paper) for paper in sweep_of(out).settings]


def chapters(out):
    names, first = book.listed_notebooks(Path.cwd()), first_settings(out)
    untold = {} if first.cohort == "phantom" else fit.untold(names, first.cohort, first.profile, told(out))
    return [name for name in names if name not in untold]


def told(out):
    """Papers with a chapter in a book: of a public set those that its variant is for, else all that its cohort fits."""
    return tuple(sweep_of(out).settings) if out in PLACES else ()


def first_settings(out):
    return next(iter(sweep_of(out).settings.values()))


def records(runs):
    return [f"{RUNS}/{run}/provenance.json" for run in runs]


def of_profile(run):
    return sweep.RESOURCES[run.split("/")[3]]


wildcard_constraints:
    run=r"[^/]+/[^/]+/[^/]+/[^/]+/[^/]+",
    prepared=r"[^/]+",
    out="|".join([OUT, *PLACES]),
    key="|".join(PUBLIC),
    variant=r"[^/]+",
    paper="|".join(registry.KEYS),


localrules: records, needs, splits, publish, pages, book


# Results are marked `update`: Snakemake then leaves those that are there, and a run goes on where it was. Inputs are
# `ancient`: a file that is merely newer makes no finished run another one.


rule records:
    input: lambda w: records(sweep_of(OUT).runs),


rule prepare:
    """The checked, memory-mapped copy of a cohort, from which everything trains."""
    output: update(f"{RUNS}/prepared/{{prepared}}/prepared.json"),
    log: f"{OUT}/logs/prepare/{{prepared}}.log",
    params: source=lambda w: source_of(w.prepared),
    resources: mem_mb=4000, runtime=120, gpu=0,
    shell: "{NPCREPRO} data prepare {params.source:q} --runs {RUNS:q} > {log:q} 2>&1"


rule record:
    """One run: paper, method, cohort, fold and seed, behind the runs that it uses."""
    input:
        cohort=lambda w: ancient(f"{sweep_with(w.run).cohorts[w.run.split('/')[0]].folder}/prepared.json"),
        used=lambda w: [ancient(path) for path in records(run.place for run in sweep_with(w.run).runs[w.run].needs)],
    output: update(f"{RUNS}/{{run}}/provenance.json"),
    log: f"{OUT}/logs/runs/{{run}}.log",
    params: options=lambda w: sweep_with(w.run).options(w.run.split("/")[0]),
    threads: 4 if ON_GPU else 1
    resources: mem_mb=lambda w: of_profile(w.run)[0], runtime=lambda w: of_profile(w.run)[1], gpu=int(ON_GPU),
    shell: "{NPCREPRO} run {params.options} --only {wildcards.run:q} > {log:q} 2>&1"


rule publish:
    """The numbers of a paper's runs, without images and weights."""
    input:
        runs=lambda w: records(wanted(w.out, w.paper)),
        cohort=lambda w: ancient(cohort_of(w.out)),
        code=newest(Path(npcrepro.__file__).parent),
    output: "{out}/results/{paper}-{rest}/runs.json",
    log: "{out}/logs/publish/{paper}-{rest}.log",
    params: options=lambda w: sweep_of(w.out).options(w.paper),
    shell: '{NPCREPRO} run {params.options} --publish "$(dirname {output:q})" > {log:q} 2>&1'


rule notebook:
    """A notebook, executed; it reads the runs of its paper back."""
    input:
        "notebooks/{name}.ipynb",
        lambda w: published(w.out, paper) if (paper := fit.paper_of(w.name)) in sweep_of(w.out).settings else [],
        newest(Path(npcrepro.__file__).parent, "book/results"),
    output: update("{out}/executed/{name}.ipynb"),
    resources: mem_mb=3000, runtime=120,
    run:
        parameters, place = sweep_of(wildcards.out).parameters(wildcards.name), Path(wildcards.out).resolve()
        notebooks.execute(Path.cwd(), [wildcards.name], parameters, place, at_once=1)
        Path(output[0]).touch()  # executed now, or found to be what it would be now


rule pages:
    input:
        lambda w: [f"{w.out}/executed/{name}.ipynb" for name in chapters(w.out)],
        lambda w: all_published(w.out),
        newest("book"), "_toc.yml", "_config.yml",
    output: "{out}/html/index.html"
    run:
        first = first_settings(wildcards.out)
        about = {"notebooks": [], "cohort": first.cohort, "papers": told(wildcards.out)}
        book.build(first.profile, wildcards.out, RUNS, **about)


rule book:
    input: f"{OUT}/html/index.html",


# Public sets


rule needs:
    """What a public set will take, before anything is downloaded."""
    output: f"{OUT}/{{key}}/needs.txt"
    params: plans=lambda w: " && ".join(plan_of(w.key, variant) for variant in PUBLIC[w.key])
    shell: "({params.plans}) | tee {output:q}"


rule fetch:
    """The images as they are published. Those that have to be asked for are only looked at."""
    input: ancient(f"{OUT}/{{key}}/needs.txt")
    output: touch(f"{COHORTS}/{{key}}/fetched")
    params: folder=f"{COHORTS}/{{key}}/published"
    log: f"{OUT}/logs/fetch/{{key}}.log"
    retries: 0  # the command itself tries again where that can help
    resources: mem_mb=2000, runtime=1440, gpu=0,
    shell: "{NPCREPRO} data fetch {wildcards.key} {params.folder:q} > {log:q} 2>&1"


checkpoint cohort:
    """One variant as a cohort, without a defect."""
    input: ancient(f"{COHORTS}/{{key}}/fetched")
    output: f"{COHORTS}/{{key}}/{{variant}}/dataset.json"
    params:
        published=f"{COHORTS}/{{key}}/published",
        folder=f"{COHORTS}/{{key}}/{{variant}}",
        prepared=f"{RUNS}/prepared",
    log: f"{OUT}/logs/cohort/{{key}}-{{variant}}.log"
    resources: mem_mb=16000, runtime=1440, gpu=0,
    shell:
        """
        mkdir -p {params.prepared:q}
        {{ {NPCREPRO} data convert {wildcards.key} {params.published:q} {params.folder:q} --variant {wildcards.variant} &&
        {NPCREPRO} data check {params.folder:q}; }} > {log:q} 2>&1 || {{ rm -rf {params.folder:q}; exit 1; }}
        """


rule splits:
    """The folds of a paper, as nnU-Net reads them."""
    input: ancient(f"{COHORTS}/{{key}}/{{variant}}/dataset.json")
    output: f"{OUT}/{{key}}/{{variant}}/splits-{{paper}}.json"
    params: folder=f"{COHORTS}/{{key}}/{{variant}}"
    shell: "{NPCREPRO} data splits {params.folder:q} {output:q} --paper {wildcards.paper}"


for _key, _variants in PUBLIC.items():

    rule:
        name: _key
        input:
            [f"{OUT}/{_key}/{variant}/html/index.html" for variant in _variants],
            [
                f"{OUT}/{_key}/{variant}/splits-{paper}.json"
                for variant, papers in _variants.items()
                for paper in papers.split(",")
            ],
