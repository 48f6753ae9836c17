"""What the benchmark concludes from timings: which rounds count, ratios, exponents and gates; and its own clicks."""

import subprocess
import sys

import bench
import numpy as np
import pytest
import timeline
from harness import clicks, gates, processes, rounds
from harness.rounds import Gate, Ratio, Round


def test_rounds_with_busy_neighbours_do_not_count():
    found = [Round({"slow": 9.0}, 0.3), Round({"slow": 2.0}, 0.119), Round({"slow": 3.0}, 0.12)]
    assert rounds.quiet(found) == found[1:2]
    assert processes.counted(found) == (found, False)  # one quiet round is no basis for a verdict
    assert processes.counted([*found, *3 * found[1:2]]) == (4 * found[1:2], True)


def test_a_ratio_is_of_medians_and_its_span_of_pairs():
    found = [Round({"slow": slow, "quick": quick}, 0) for slow, quick in ((2, 1), (3, 1), (8, 2))]
    assert rounds.ratio(found, "slow", "quick") == Ratio(3.0, 2.0, 4.0)


def test_growth_is_the_exponent_of_a_power():
    sizes = [1_000, 2_000, 5_000]
    assert rounds.growth(sizes, [3 * size**0.8 for size in sizes]) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("gate", "holds"),
    [
        (Gate("a", 2.5, 2.5), True),
        (Gate("a", 2.49, 2.5), False),
        (Gate("a", 0.001, 0.002, at_least=False), True),
        (Gate("a", 0.003, 0.002, at_least=False), False),
        (Gate("a", None, 0.002, at_least=False), False),
        (Gate("a", float("nan"), 0.002, at_least=False), False),
    ],
)
def test_one_gate_that_falls_short_is_the_verdict(gate, holds):
    lines, status = rounds.verdict([Gate("sure", 2.0, 1.0), gate])
    assert (status, lines[1].startswith("holds")) == (int(not holds), holds)


def a_result(seconds, quiet=True):
    """What ``bench.py`` finds at M where an epoch of ours takes these seconds, of the plain loop 4, the strongest 2."""
    row = {
        "seconds": seconds,
        "ratio": Ratio(*[4 / seconds] * 3),
        "strongest": Ratio(*[2 / seconds] * 3),
        "share": 0.9 / seconds,
    }
    loss = {"before": {"a": 300.0, "b": 300.001}, "after": {"a": 290.0, "b": 291.0}}
    return {"bfloat16": True, "epochs": {"M": {"rows": {"ours:float32": row}, "quiet": quiet, "loss": loss}}}


def short(result):
    return [gate.what for gate in gates.gates(result) if not rounds.held(gate)]


def test_the_gates_are_those_of_the_size_and_precision():
    assert short(a_result(1.0)) == []
    assert short(a_result(1.19)) == [
        "M float32: epoch, times plain PyTorch",
        "M float32: share of the process's own product",
    ]
    assert len(short(a_result(2.1))) == 3
    assert len(short(a_result(1.0, quiet=False))) == 3  # timings of a busy machine decide nothing


def test_another_loss_after_an_epoch_falls_short_of_every_speed():
    result = a_result(1.0)
    result["epochs"]["M"]["loss"]["after"]["b"] = 293.0
    assert short(result) == ["M: spread of losses after an epoch"]


def test_whole_runs_are_held_to_their_seconds_and_ndcg():
    def row(seconds, ndcg=0.4):
        return {"seconds": seconds, "ndcg": ndcg}

    table = {gates.PLAIN: row(30), "ours:float32 cached": row(12, 0.4019), "ours:bfloat16 cached": row(9.9, 0.4025)}
    small = {gates.PLAIN: row(6), "ours:float32 cold": row(4.5), "ours:float32 cached": row(3.6)}
    tables = {"S": {"quiet": True, "rows": small}, "M": {"quiet": True, "rows": table}}
    assert short({"bfloat16": True, "whole": tables}) == [
        "S: whole process, cached, times plain PyTorch",
        "M: NDCG@100 of bfloat16 away from float32's",
    ]
    tables["S"]["quiet"] = tables["M"]["quiet"] = False
    assert short({"bfloat16": True, "whole": tables}) == [
        "S: whole process, cold, times plain PyTorch",
        "S: whole process, cached, times plain PyTorch",
        "M: whole process, bfloat16 cached, times plain PyTorch",
        "M: NDCG@100 of bfloat16 away from float32's",
    ]


def test_whole_runs_with_busy_neighbours_are_run_again_and_do_not_count(monkeypatch):
    seconds, others = iter([9.0, 5.0, 5.0, 6.0, 7.0, 5.0]), iter([0.5, 0.0, 0.0, 0.11, 0.0, 0.12])
    monkeypatch.setattr(
        bench, "whole", lambda *_, **__: {"seconds": next(seconds), "others": next(others), "ndcg": 0.4, "peak": 1}
    )
    found = bench.runs("S", ["with_torch:", "with_cornac:"], 1)  # the first round was not quiet
    assert (found["quiet"], found["rounds"]) == (True, 1)
    assert {name: row["seconds"] for name, row in found["rows"].items()} == {"with_torch:": 5.0, "with_cornac:": 6.0}
    assert bench.runs("S", ["with_torch:"], 1)["quiet"]
    with pytest.raises(StopIteration):  # asks for another round, since its neighbours took .12 of a core
        bench.runs("S", ["with_torch:"], 1)


def test_the_clicks_are_as_many_as_asked_split_and_drawn_once(tmp_path):
    size = clicks.Size(400, 300, 30)
    found = clicks.load(tmp_path, size)
    train, held_out = (matrix.toarray() for matrix in found)
    assert set(np.unique(train)) == set(np.unique(held_out)) == {0, 1}
    assert not (train * held_out).any()
    per_user = train.sum(axis=1)
    assert (per_user + held_out.sum(axis=1)).mean() == pytest.approx(30, rel=0.05)
    assert per_user.min() > 0
    assert held_out.sum() / (train.sum() + held_out.sum()) == pytest.approx(0.2, abs=0.03)
    for again, matrix in zip(clicks.load(tmp_path, size), found, strict=True):
        np.testing.assert_array_equal(again.toarray(), matrix.toarray())


def test_clicks_by_popularity_alone_are_as_many_as_are_trained_on():
    found = clicks.popular_clicks(300, 40)
    assert clicks.TRAINED == 48
    np.testing.assert_array_equal(found.sum(axis=1), 48)
    share = found.sum(axis=0) / found.sum()
    assert share[0] / share[9] == pytest.approx(10, rel=0.15)
    assert found.has_canonical_format


def test_a_worker_starts_from_the_weights_that_all_start_from_and_leaves_them(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "BUILD", tmp_path)
    size = clicks.Size(60, 40, 8)
    worker = processes.Worker("ours:float32", size)
    counts, weights = clicks.load(tmp_path / "bench-data", size).train.toarray(), clicks.first_weights(size.items)
    latent = np.tanh(3 * counts / np.linalg.norm(counts, axis=1, keepdims=True) @ weights["hidden"]) @ weights["mean"]
    logits = np.tanh(latent @ weights["decoder"]) @ weights["logits"]
    expected = -(counts * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1).mean()
    assert worker.ask("loss")["value"] == pytest.approx(expected, rel=1e-5)  # beta is 0 before the first epoch
    assert worker.ask("epoch", times=2)["value"] > 0
    assert worker.ask("loss")["value"] != pytest.approx(expected, rel=1e-4)
    worker.close()
    assert worker.process.returncode == 0


def test_ndcg_by_hand():
    ranks, users = np.array([1, 3, 101, 2]), np.array([0, 0, 1, 3])
    expected = np.mean([(1 + 1 / 2) / (1 + 1 / np.log2(3)), 0.0, 1 / np.log2(3)])
    assert clicks.mean_ndcg(ranks, users, np.array([2, 1, 0, 1])) == pytest.approx(expected)


def test_the_median_step_begins_with_the_longest_operation_of_a_step():
    starts = [0.0, 12.0, 21.0, 32.0]  # steps of 12, 9 and 11 ms, the last one open
    loop = [timeline.Operation("product", "a", start, 4.0) for start in starts]
    loop += [timeline.Operation("update", "b", start + 5, 1.0) for start in starts]
    loop += [timeline.Operation("noise", "b", 0.0, 30.0)]  # once a run
    loop += [timeline.Operation("while.7", "a", start - 1, 8.0) for start in starts]  # holds the others
    found, length = timeline.median_step(sorted(loop, key=lambda part: part.start), 4)
    assert length == 11.0
    assert [(part.name, part.start) for part in found] == [("product", 0.0), ("update", 5.0)]


def test_a_timeline_names_what_each_operation_gives():
    command = [sys.executable, timeline.__file__, "--size", "S", "--precision", "float32"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    rows = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")][2:]
    logits = [row for row in rows if row[4] == "f32[500,500] dot_general"]
    assert logits
    assert all(float(row[1]) >= timeline.SHORTEST for row in rows)
