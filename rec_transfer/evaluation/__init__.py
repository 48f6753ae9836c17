"""The judge: what is hidden, how a list is ranked and measured, and what the numbers are worth.

It knows no model and no method.

* ``splits``: which users and clicks are hidden; every experiment is one ``Split``
* ``ranking``: the place of every hidden item in its user's list; negatives to rank it against
* ``metrics``: NDCG, recall, hit rate, reciprocal rank of such ranks
* ``protocol``: fit, score, rank and measure methods on a split; compare them
* ``statistics``: intervals, paired tests, share of the ceiling's lift, results by group
* ``tuning``: choosing among candidates on the overlapping users
* ``overlap``: whether the overlap is large enough for transfer to pay
* ``floors``: random order and popularity, the zero of the scale
* ``audit``: leaks of public data
"""

from rec_transfer.evaluation.audit import (
    Clean,
    duplicated_users,
    identical_audiences,
    rows_in_training,
    without_leaks,
)
from rec_transfer.evaluation.floors import fit_popularity, fit_random
from rec_transfer.evaluation.metrics import hit_rate_at_k, ndcg, ndcg_at_k, recall_at_k, reciprocal_rank
from rec_transfer.evaluation.overlap import Lift, lift_by_overlap, overlap_lift, with_overlap
from rec_transfer.evaluation.protocol import METRICS, all_scores, compare, evaluate, measure
from rec_transfer.evaluation.ranking import Ranked, draw_negatives, most_negatives, ranks, ranks_among
from rec_transfer.evaluation.splits import (
    ColdStart,
    cold_start,
    folds,
    hide_users,
    leave_last_out,
    some_users,
    split_items,
)
from rec_transfer.evaluation.statistics import (
    bootstrap_interval,
    by_group,
    holm,
    paired_tests,
    per_user,
    share_of_lift,
    summarise,
)
from rec_transfer.evaluation.tuning import Tuned, cross_validate, tuned

__all__ = [
    "METRICS",
    "Clean",
    "ColdStart",
    "Lift",
    "Ranked",
    "Tuned",
    "all_scores",
    "bootstrap_interval",
    "by_group",
    "cold_start",
    "compare",
    "cross_validate",
    "draw_negatives",
    "duplicated_users",
    "evaluate",
    "fit_popularity",
    "fit_random",
    "folds",
    "hide_users",
    "hit_rate_at_k",
    "holm",
    "identical_audiences",
    "leave_last_out",
    "lift_by_overlap",
    "measure",
    "most_negatives",
    "ndcg",
    "ndcg_at_k",
    "overlap_lift",
    "paired_tests",
    "per_user",
    "ranks",
    "ranks_among",
    "recall_at_k",
    "reciprocal_rank",
    "rows_in_training",
    "share_of_lift",
    "some_users",
    "split_items",
    "summarise",
    "tuned",
    "with_overlap",
    "without_leaks",
]
