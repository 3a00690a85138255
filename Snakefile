# Runs -> records -> published numbers -> notebooks -> book.
#
#   snakemake --cores 2 book                                      everything on the embedded phantom, profile quick
#   snakemake --cores 2 records --config papers=li2018 seeds=0,1  finished runs alone
#   snakemake --dry-run records --config profile=paper            what the whole sweep would be
#
# --config takes papers, cohort, profile, methods, folds, seeds, device, runs, modalities: those of `npcrepro run`.
#
# What a run is, where it lies and what it waits for comes from npcrepro.runs.sweep, which `npcrepro run` and
# `npcrepro status` share: a run that one of them has finished is finished for all.

import sys
from itertools import chain
from pathlib import Path

import npcrepro
from npcrepro.book.build import book, notebooks
from npcrepro.runs import fit, sweep

OUT = Path("_build")
NPCREPRO = f"{sys.executable} -m npcrepro.cli.commands"
SWEEP = sweep.from_config(config, images=not workflow.output_settings.dryrun)
PAPERS, SETTINGS = list(SWEEP.settings), next(iter(SWEEP.settings.values()))
RUNS, ON_GPU = SETTINGS.runs, SETTINGS.device == "cuda"
MEMORY, MINUTES = sweep.RESOURCES[SETTINGS.profile]
CHAPTERS = book.listed_notebooks(Path.cwd())
if SETTINGS.cohort != "phantom":
    CHAPTERS = [name for name in CHAPTERS if name not in fit.untold(CHAPTERS, SETTINGS.cohort, SETTINGS.profile)]


def newest(*folders):
    """The file that changed last: one input that stands for all of them."""
    files = chain.from_iterable(Path(folder).rglob("*.*") for folder in folders)
    sources = [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    return str(max(sources, key=lambda path: path.stat().st_mtime))


def published(paper):
    cohort, settings = SWEEP.cohorts[paper].name, SWEEP.settings[paper]
    return f"{OUT}/results/{paper}-{cohort}-{settings.profile}/runs.json"


def records(runs):
    return [f"{RUNS}/{run}/provenance.json" for run in runs]


wildcard_constraints:
    run=r"[^/]+/[^/]+/[^/]+/[^/]+/[^/]+",
    prepared=r"[^/]+",


localrules: records, publish, book


# Results are marked `update`: Snakemake then leaves those that are there, and a run goes on where it was. Inputs are
# `ancient`: a file that is merely newer makes no finished run another one.


rule records:
    input: records(SWEEP.runs),


rule prepare:
    """The checked, memory-mapped copy of a cohort, from which everything trains."""
    output: update(f"{RUNS}/prepared/{{prepared}}/prepared.json"),
    log: f"{OUT}/logs/prepare/{{prepared}}.log",
    params: source=lambda w: next(SWEEP.sources[p] for p in PAPERS if SWEEP.cohorts[p].folder.name == w.prepared),
    resources: mem_mb=4000, runtime=120, gpu=0,
    shell: "{NPCREPRO} data prepare {params.source:q} --runs {RUNS:q} > {log:q} 2>&1"


rule record:
    """One run: paper, method, cohort, fold and seed, behind the runs that it uses."""
    input:
        cohort=lambda w: ancient(f"{SWEEP.cohorts[w.run.split('/')[0]].folder}/prepared.json"),
        used=lambda w: [ancient(path) for path in records(run.place for run in SWEEP.runs[w.run].needs)],
    output: update(f"{RUNS}/{{run}}/provenance.json"),
    log: f"{OUT}/logs/runs/{{run}}.log",
    params: options=lambda w: SWEEP.options(w.run.split("/")[0]),
    threads: 4 if ON_GPU else 1
    resources: mem_mb=MEMORY, runtime=MINUTES, gpu=int(ON_GPU),
    shell: "{NPCREPRO} run {params.options} --only {wildcards.run:q} > {log:q} 2>&1"


rule publish:
    """The numbers of a paper's runs, without images and weights."""
    input:
        runs=lambda w: records(run for run in SWEEP.runs if run in SWEEP.wanted and run.startswith(f"{w.paper}/")),
        code=newest(Path(npcrepro.__file__).parent),
    output: f"{OUT}/results/{{paper}}-{{rest}}/runs.json",
    log: f"{OUT}/logs/publish/{{paper}}-{{rest}}.log",
    wildcard_constraints: paper="|".join(PAPERS),
    params: options=lambda w: SWEEP.options(w.paper),
    shell: "{NPCREPRO} run {params.options} --publish $(dirname {output:q}) > {log:q} 2>&1"


rule notebook:
    """A notebook, executed; it reads the runs of its paper back."""
    input:
        "notebooks/{name}.ipynb",
        lambda w: published(w.name) if w.name in PAPERS else [],
        newest(Path(npcrepro.__file__).parent, "book/results"),
    output: update(f"{OUT}/executed/{{name}}.ipynb"),
    resources: mem_mb=3000, runtime=120,
    run:
        notebooks.execute(Path.cwd(), [wildcards.name], SWEEP.parameters(wildcards.name), OUT.resolve(), at_once=1)
        Path(output[0]).touch()  # executed now, or found to be what it would be now


rule book:
    input:
        [f"{OUT}/executed/{name}.ipynb" for name in CHAPTERS],
        [published(paper) for paper in PAPERS],
        newest("book"), "_toc.yml", "_config.yml",
    output: f"{OUT}/html/index.html",
    run:
        book.build(SETTINGS.profile, OUT, RUNS, notebooks=[], cohort=SETTINGS.cohort)
