import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from core_cases import TINY

from npcrepro.base.errors import InputError
from npcrepro.book import tables
from npcrepro.metrics.overlap import METRICS
from npcrepro.papers.li2018.protocol import PAPER
from npcrepro.protocol import registry


def patients(dsc: dict[str, list[float]], structure="GTVp", seeds=(0,)) -> pd.DataFrame:
    """Rows as of per_patient.by_patient: one value for each patient, the same for all metrics and seeds."""
    rows = [
        {"paper": "li2018", "method": method, "cohort": "c", "profile": "p", "seed": seed, "patient": f"P{i}"}
        | {"suspect": False, "structure": structure, "region": "all_slices", "reference_ml": 1.0, "predicted_ml": 1.0}
        | dict.fromkeys(METRICS, value + 0.1 * seed)
        for method, values in dsc.items()
        for i, value in enumerate(values)
        for seed in seeds
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("key", registry.KEYS)
def test_every_network_takes_in_what_its_table_is_made_with(key):
    paper = registry.load(key)
    size = paper.profile("smoke")
    # Many methods differ in their training alone.
    networks = {repr((method.network, method.input_shape(size))): method for method in paper.methods}
    without = []
    for method in networks.values():
        try:
            rows = tables.layers(method, size)
            axes = "C x D x H x W" if len(method.input_shape(size)) == 4 else "C x H x W"
            assert rows[f"output ({axes})"].str.count(" x ").max() == axes.count(" x "), method.name
        except InputError:  # what runs there depends on what is found in the image
            without.append(method.name)
    assert without == (["mask-rcnn", "mask-rcnn-enlarged", "crop"] if key == "luo2020" else [])


@pytest.mark.parametrize("name", ["li2018/stepwise", "luo2020/two-windows", "guo2021/bunet-large-blocks"])
def test_the_input_of_a_network_is_what_the_data_gives(name, tiny_prepared):
    method = replace(registry.find_method(name)[1], channels=("CET1",), structures=("GTVp",), any_structures=False)
    size = replace(TINY, matrix=(2, 4, 4) if "guo" in name else (16, 16))
    data = method.data.build(tiny_prepared, size.matrix, method.channels, method.structures)
    image, *_ = data.batch(data.samples(["P0"])[:1])
    assert tuple(data.finish(image).shape) == (1, *method.input_shape(size))


def test_slice_times_at_the_papers_widths():
    methods = [registry.load("xue2020").method(name) for name in ("deeplabv3plus", "unet-16")]
    table = tables.slice_times(methods, registry.load("xue2020").profile("smoke"), repeats=1)
    assert table.parameters.tolist() == [2_714_097, 1_943_761]
    assert (table.ms > 0).all()
    assert table["MAC (billions)"][1] == pytest.approx(12.1 * (64 / 512) ** 2, rel=0.02)


def test_scores_count_patients_and_not_seeds():
    rows = tables.scores(patients({"stepwise": [0.2, 0.4, 0.6]}, seeds=(0, 1)), PAPER, {"dsc": "DSC"})
    assert (rows.patients[0], rows.seeds[0]) == (3, 2)
    assert rows.DSC[0].mean == pytest.approx(0.45)
    assert rows.DSC[0].n == 3
    spread = tables.spread_of_means(patients({"stepwise": [0.2, 0.4]}, seeds=(0, 1, 2)), "dsc")
    assert spread["stepwise"] == pytest.approx(np.std([0.3, 0.4, 0.5], ddof=1))


def test_two_structures_in_one_mean_are_an_error():
    both = pd.concat([patients({"stepwise": [0.2, 0.4]}), patients({"stepwise": [0.3, 0.5]}, structure="GTVnd")])
    with pytest.raises(ValueError, match="select one structure"):
        tables.scores(both, PAPER, {"dsc": "DSC"})


def test_differences_are_those_of_the_protocol_and_change_one_thing():
    first = [0.2, 0.4, 0.6, 0.2, 0.4, 0.6]
    values = {"stepwise": first, "linear-scores": [1.5 * dsc for dsc in first], "linear-unfused": first}
    rows = tables.differences(patients(values), PAPER, "dsc")
    assert rows.comparison.tolist() == [
        "Stepwise, linear scores minus Stepwise, ReLU scores",
        "No fusion minus Stepwise, both with linear scores",
    ]
    assert rows["mean difference"].tolist() == ["+0.200", "-0.200"]
    assert rows[tables.P].tolist() == ["0.062*", "0.062*"]  # two tests, 2 of the 64 sign flips are as extreme
    long = {name: 2 * values[name] for name in ("stepwise", "linear-scores")}
    (row,) = tables.differences(patients(long), PAPER, "dsc").to_dict("records")
    assert row[tables.P] == "< 0.001"  # 2 of 4,096; a p of 0 there is none
    # The partner of the one that is left was not run.
    assert tables.differences(patients({"stepwise": first, "linear-unfused": first}), PAPER, "dsc").empty


def test_too_few_patients_for_a_p_below_a_twentieth_are_not_tested():
    five = [0.2, 0.4, 0.6, 0.8, 0.5]
    values = {
        "stepwise": [*five, 0.3],
        "linear-scores": [0.1, 0.3, 0.5, 0.7, 0.4, 0.2],
        "linear-unfused": [*(0.5 * dsc for dsc in five), np.nan],
    }
    pairs = [("linear-scores", "stepwise"), ("linear-unfused", "stepwise")]
    titles = {PAPER.method("linear-scores").title: 0.7, PAPER.method("stepwise").title: 0.8}
    rows = tables.differences(patients(values), PAPER, "dsc", pairs, titles)
    assert rows.patients.tolist() == [6, 5]
    # The one that is not tested does not count among those that are.
    assert rows[tables.P].tolist() == ["0.031", "–"]
    assert "–" not in rows["95 % interval"].tolist()
    assert rows.reported.tolist() == ["-0.100", "–"]


def test_a_table_has_no_negative_zero_and_short_texts_do_not_break():
    frame = pd.DataFrame({"x": [-0.04, -0.06, np.nan], "y": ["0 of 23", "a longer text", "z"]})
    html = tables.show(frame, precision=1).to_html()
    cells = ["0.0", "0\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}23", "-0.1", "a longer text", "–", "z"]
    assert re.findall(r"<td[^>]*>([^<]*)<", html) == cells
    assert "npc-wide-table" not in html
    assert "npc-wide-table" in tables.show(pd.DataFrame([range(tables.MANY_COLUMNS)])).to_html()
