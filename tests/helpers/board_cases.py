"""Published records of methods of Luo et al. 2020, made of counts of voxels."""

import json
from math import nan

import pandas as pd
import record_cases
from record_cases import dsc

from npcrepro.base.files import as_data
from npcrepro.protocol import registry
from npcrepro.runs.published import write_by_method
from npcrepro.runs.records import IDENTITY

ORGANS = ("BrainStem", "Mandible")


def rows_of(method, hits, patient, structure="BrainStem", **run):
    """The row of `record_cases` in all slices; the distance falls with the hits."""
    row, _ = record_cases.rows_of(method, hits, patient, structure=structure, **run)
    return row | {"case": f"{patient}_1", "dsc": dsc(hits), "surfel_hd95_mm": 10.0 - hits if hits else nan}


def publish(folder, rows, *, paper="luo2020", profile="p", cohort="c", data="abc"):
    """A record with these rows, as `records.publish` would write it; methods have the networks of their paper."""
    folder.mkdir(parents=True)
    cases = pd.DataFrame(rows).assign(paper=paper, profile=profile, cohort=cohort)
    write_by_method(folder, "cases", cases, cases.method.unique())
    own = cases[["method", "fold", "seed"]].drop_duplicates().to_dict("records")
    size = {"name": profile, "matrix": [32, 32], "width": 0.25, "batch_size": 4, "updates": 100}
    common = {"paper": paper, "cohort": cohort, "data_sha256": data, "split_sha256": "def", "profile": size}
    common |= {"device": "a card", "finished": "2026-01-02T00:00:00", "status": "trained", "used": {}}
    common |= {"seconds": {"train": 120.0, "predict": 24.0, "all": 144.0}, "peak_gpu_memory_mib": 1234}
    known = {method.name: method for method in registry.load("luo2020").methods}
    methods = {name: as_data(known[name]) for name in cases.method.unique()}
    (folder / "runs.json").write_text(json.dumps({"common": common, "methods": methods, "runs": own}))
    curve = cases[IDENTITY].drop_duplicates().assign(stage="all", update=1, loss=1.0)
    write_by_method(folder, "history", curve, methods)
    return folder
