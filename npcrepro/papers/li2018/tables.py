"""Tables 1 and 2 of Li et al. 2018 as arrays and rows, with what follows from them."""

import numpy as np

from npcrepro.findings.audit.checks import Reported, half


def patients(reported: Reported) -> dict[str, np.ndarray]:
    """Columns of Table 2, one value for each patient."""
    table = reported["tables"]["table2"]
    return dict(zip(table["columns"], np.array(table["rows"], dtype=float).T, strict=True))


def known(reported: Reported, *names: str) -> tuple[tuple[np.ndarray, float], ...]:
    """Columns of Table 2 with the half unit of their last digit."""
    columns = patients(reported)
    return tuple((columns[name], half(reported, name)) for name in names)


def layers(reported: Reported) -> list[dict]:
    """Rows of Table 1 with what follows from kernel, stride and padding: input, output, parameters and MAC."""
    table = reported["tables"]["table1"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    side, channels = reported["paper"]["matrix"][0], 1
    # Concat1 joins the map of one channel with Relu2, Concat2 with Relu1.
    skips = {"Concat1": "Conv2", "Concat2": "Conv1"}
    widths: dict[str, int] = {}
    for row in rows:
        inputs, taps = channels, row["kernel"] ** 2
        outputs, macs = row["channels"], 0
        before = side
        if row["kind"] == "deconvolution":
            side = (side - 1) * row["stride"] - 2 * row["padding"] + row["kernel"]
            macs = before**2 * taps * inputs * outputs
        elif row["kind"] == "concatenation":
            outputs = channels + widths[skips[row["layer"]]]
        else:
            side = (side + 2 * row["padding"] - row["kernel"]) // row["stride"] + 1
            if row["kind"] == "pooling":
                outputs = channels
            else:
                macs = side**2 * taps * inputs * outputs
        weights = macs and taps * inputs * outputs + outputs
        fits = (side, outputs) == (row["side"], row["channels"])
        row |= {"inputs": inputs, "computed_side": side, "macs": macs, "parameters": weights, "fits": fits}
        # The next layer goes on from what is printed, so that one misprint counts once.
        side, channels = row["side"], row["channels"]
        widths[row["layer"]] = channels
    return rows
