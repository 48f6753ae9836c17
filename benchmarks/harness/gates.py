"""The bounds that ``make bench`` holds its figures to, and the tables it prints."""

from harness.rounds import Gate

PARTS = ("epochs", "growth", "whole", "log", "memory")
PLAIN, RECBOLE, CORNAC = "with_torch:dense-float32", "with_recbole:", "with_cornac:"
NAMES = {
    PLAIN: "PyTorch loop, dense batches from compressed rows",
    "with_torch:sparse-float32": "PyTorch, compressed first layer, fused Adam",
    "with_torch:sparse-bfloat16": "the same under bfloat16 autocast",
    RECBOLE: "RecBole MultiVAE",
    CORNAC: "Cornac VAECF",
    "ours:float32": "rec_transfer, float32",
    "ours:bfloat16": "rec_transfer, bfloat16",
}
TIMES_PLAIN = {  # an epoch, times the plain PyTorch loop
    ("S", "float32"): 2.3, ("M", "float32"): 3.4, ("L10", "float32"): 3.4,
    ("M", "bfloat16"): 4.0, ("L10", "bfloat16"): 4.5,
}  # fmt: skip
TIMES_STRONGEST = {"float32": 1.0, "bfloat16": 1.4}  # at M and L10, the strongest PyTorch of the same precision
SHARE = {"float32": 0.8, "bfloat16": 0.4}  # of the same process's product of two 2,000 x 2,000 matrices
SAME_LOSS = {"before": 1e-5, "after": 5e-3}  # relative; after an epoch the noise differs


def gates(result: dict) -> list[Gate]:
    """The gates that concern what was run; one that a missing library leaves unmeasured is left out."""
    found = []
    for label, table in result.get("epochs", {}).items():
        found += _epoch_gates(label, table)
    if result.get("whole"):
        found += _whole_gates(result["whole"], result["bfloat16"])
    for part, what in (("log", "10^7 events within 1 GB"), ("memory", "10^5 users x 10^4 items within 2 GB")):
        if part in result:
            found.append(Gate(f"{what}, exit status", result[part]["status"], 0, at_least=False))
    return found


def _epoch_gates(label, table):
    found, rows = [], table["rows"]

    def measured(value):
        return value if table["quiet"] else None

    for precision in ("float32", "bfloat16"):
        row = rows.get(f"ours:{precision}")
        if row is None:
            continue
        bound = TIMES_PLAIN.get((label, precision))
        if bound and row["ratio"]:
            found.append(
                Gate(f"{label} {precision}: epoch, times plain PyTorch", measured(row["ratio"].of_medians), bound)
            )
        if label == "S":
            continue
        if row["strongest"]:
            what = f"{label} {precision}: epoch, times the strongest PyTorch"
            found.append(Gate(what, measured(row["strongest"].of_medians), TIMES_STRONGEST[precision]))
        what = f"{label} {precision}: share of the process's own product"
        found.append(Gate(what, measured(row["share"]), SHARE[precision]))
    for when, bound in SAME_LOSS.items():
        losses = table["loss"][when].values()
        spread = max(losses) / min(losses) - 1
        found.append(Gate(f"{label}: spread of losses {when} an epoch", spread, bound, at_least=False))
    if "ranking" in table:
        for name, bound in ((PLAIN, 2.5), (CORNAC, 15.0)):
            if name in table["ranking"]["ratios"]:
                value = table["ranking"]["ratios"][name].of_medians if table["ranking"]["quiet"] else None
                found.append(Gate(f"{label}: ranking, times {NAMES[name].split(',')[0]}", value, bound))
    return found


def _whole_gates(tables, bfloat16):
    found = []
    small, table = (tables.get(label, {"rows": {}})["rows"] for label in ("S", "M"))

    def times_plain(label, name):
        rows = tables[label]["rows"]
        return rows[PLAIN]["seconds"] / rows[name]["seconds"] if tables[label]["quiet"] else None

    if PLAIN in small:
        for state, bound in (("cold", 1.3), ("cached", 1.7)):
            value = times_plain("S", f"ours:float32 {state}")
            found.append(Gate(f"S: whole process, {state}, times plain PyTorch", value, bound))
    if PLAIN in table:
        best = f"ours:{'bfloat16' if bfloat16 else 'float32'} cached"
        value = times_plain("M", best)
        found.append(Gate(f"M: whole process, {best.split(':')[1]}, times plain PyTorch", value, 3.0))
        away = abs(table[PLAIN]["ndcg"] - table["ours:float32 cached"]["ndcg"])
        found.append(Gate("M: NDCG@100 away from PyTorch's", away, 0.002, at_least=False))
    if "ours:bfloat16 cached" in table:
        away = abs(table["ours:bfloat16 cached"]["ndcg"] - table["ours:float32 cached"]["ndcg"])
        found.append(Gate("M: NDCG@100 of bfloat16 away from float32's", away, 0.0005, at_least=False))
    return found


def print_epochs(label: str, table: dict) -> None:
    """One line an implementation: seconds, times the plain loop, share of the product, peak memory."""
    users, items, _ = table["size"]
    said = f"{table['rounds']} quiet rounds" if table["quiet"] else f"{table['rounds']} rounds, NEIGHBOURS NOT QUIET"
    print(f"\n{label}: {users:,} users x {items:,} items, {said}\n")
    print(
        "| | s an epoch | times plain | were products all | times strongest PyTorch | share of product | peak MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, row in table["rows"].items():
        share = f"{row['share']:.0%} of {row['ceiling'] / 1e9:.0f} GFLOP/s" if "share" in row else "-"
        cells = [
            f"{row['seconds']:.3f}",
            row["ratio"] or "-",
            f"{row['most']:.2f}" if "most" in row else "-",
            row.get("strongest") or "-",
            share,
            f"{row['peak'] / 1e6:.0f}",
        ]
        print("|".join(["", NAMES[name], *map(str, cells), ""]))
    for when, losses in table["loss"].items():
        print(f"loss {when}: " + ", ".join(f"{NAMES[name]} {loss:.3f}" for name, loss in losses.items()))
    if "ranking" in table:
        for name, seconds in table["ranking"]["seconds"].items():
            print(
                f"ranking, {NAMES[name]}: {seconds:.3f} s, ours {table['ranking']['ratios'].get(name, 1)} x", flush=True
            )


def print_growth(found: dict) -> None:
    """Exponents of an epoch's seconds."""
    print("\n| seconds grow as size to the | users | items | clicks |\n|---|---|---|---|")
    for name, axes in found.items():
        print(f"|{NAMES[name]}|" + "|".join(f"{value:.2f}" for value in axes.values()) + "|", flush=True)


def print_whole(label: str, found: dict) -> None:
    """Seconds of whole processes, from start to end."""
    said = f"{found['rounds']} quiet rounds" if found["quiet"] else f"{found['rounds']} rounds, NEIGHBOURS NOT QUIET"
    print(f"\n{label}: whole process, 20 epochs and a ranking, {said}\n")
    print("| | s | NDCG@100 | peak MB |\n|---|---|---|---|")
    for name, row in found["rows"].items():
        implementation, _, state = name.partition(" ")
        span = f"{row['seconds']:.1f} ({row['low']:.1f}-{row['high']:.1f})"
        print(f"|{NAMES[implementation]} {state}|{span}|{row['ndcg']:.4f}|{row['peak'] / 1e6:.0f}|", flush=True)
