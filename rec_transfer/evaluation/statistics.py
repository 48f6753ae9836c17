"""Values per user -> tables with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from rec_transfer.keys import key_for, named_keys, numpy_generator
from rec_transfer.types import Key

if TYPE_CHECKING:
    import pandas as pd


def per_user(values: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a frame [users, methods] of one metric, each user averaged over seeds; methods in the order evaluated.

    Raises:
        ValueError: a metric that was not measured.
    """
    if "ranking" in values and values.ranking.nunique() > 1:
        raise ValueError(f"values: got {sorted(values.ranking.unique())}, expected one ranking: two do not average")

    chosen = values[values.metric == metric]
    if chosen.empty:
        raise ValueError(f"metric: got {metric!r}, expected one of {sorted(values.metric.unique())}")
    table = chosen.pivot_table(index="user", columns="method", values="value", aggfunc="mean", dropna=True)
    return table[list(dict.fromkeys(chosen.method))]


def summarise(values: pd.DataFrame, *, key: Key, confidence: float = 0.95) -> pd.DataFrame:
    """Return the mean of every method and metric with a bootstrap interval over users, averaged over seeds first.

    Args:
        values: what ``evaluate`` or ``measure`` returns. A value per hidden item (``per="row"``) is averaged over
            items, and the interval resamples users with all their items.
        key: resamples users.
        confidence: of the interval.

    Returns:
        Of values per user a frame ``method, metric, mean, low, high, seed_spread`` (standard deviation over seeds of
        the mean). Of values per item the columns of ``values`` that name a line (``method``, ``ranking``, ``metric``
        and any other), then ``rows, mean, low, high``.
    """
    import pandas as pd

    if "row" in values:
        return _summarise_rows(values, key=key, confidence=confidence)
    values = values.assign(
        **{name: "scores" if name == "method" else 0 for name in ("method", "seed") if name not in values}
    )
    rows = []
    for metric in values.metric.unique():
        table = per_user(values, metric)
        for method in table:
            low, high = bootstrap_interval(table[method].to_numpy(), key=key_for(key, metric), confidence=confidence)
            seeds = values[(values.metric == metric) & (values.method == method)].groupby("seed").value.mean()
            rows.append((method, metric, table[method].mean(), low, high, seeds.std(ddof=0)))
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "low", "high", "seed_spread"])


def _summarise_rows(values, *, key, confidence, resamples=2000):
    import pandas as pd

    by = [name for name in values if name not in ("user", "row", "seed", "value")]
    lines, draws = [], {}
    for names, part in values.groupby(by, sort=False):
        user, users = pd.factorize(part.user)
        total, number = np.bincount(user, part.value), np.bincount(user)
        if len(users) not in draws:  # the same users for every line: intervals of one table go together
            draws[len(users)] = _resampled_users(len(users), resamples, numpy_generator(key_for(key, "users")))
        drawn = draws[len(users)]
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = np.quantile(drawn @ total / (drawn @ number), ends)
        rows = len(part) // (part.seed.nunique() if "seed" in part else 1)
        lines.append((*names, rows, part.value.mean(), low, high))
    return pd.DataFrame(lines, columns=[*by, "rows", "mean", "low", "high"])


def _resampled_users(users, resamples, rng):
    """How often each user is drawn [resamples, users], as shares."""
    return rng.multinomial(users, np.full(users, 1 / users), size=resamples) / users


def bootstrap_interval(
    values: np.ndarray, *, key: Key, confidence: float = 0.95, resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over users.

    NaN values are left out; fewer than two others have no interval (NaN).
    """
    from scipy.stats import bootstrap

    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    settings = {"n_resamples": resamples, "confidence_level": confidence, "method": "percentile"}
    result = bootstrap((values,), np.mean, rng=numpy_generator(key), **settings)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_tests(values: pd.DataFrame, method: str, *, metric: str = "NDCG@10", key: Key) -> pd.DataFrame:
    """Test one method against every other on the same users: mean difference, its interval, and a permutation p-value.

    The signs of the users' differences are flipped at random (9,999 times, two-sided). The hypothesis tested is that a
    user's difference is symmetric about zero, as it is where it makes no difference which method is which. For "the
    mean is zero" the p-value is an approximation that needs many users where the differences are skewed: if 5 % of the
    users gain .95 and all others lose .05, a third of the studies with 20 users have p < .05. The smallest p there is,
    .0002, says "less than" only. ``p_holm`` corrects for the number of comparisons made here (Holm 1979).

    Returns:
        Frame with columns ``against, difference, low, high, p, p_holm``, in the order of the methods.

    Raises:
        ValueError: a method that was not evaluated.
    """
    import pandas as pd
    from scipy.stats import permutation_test

    table = per_user(values, metric)
    if method not in table:
        raise ValueError(f"method: got {method!r}, expected one of {list(table)}")
    rows = []
    for other in table.columns.drop(method):
        keys = named_keys(key_for(key, other), "interval", "permutation")
        difference = (table[method] - table[other]).to_numpy()
        settings = {"permutation_type": "samples", "n_resamples": 9999, "vectorized": True}
        settings["batch"] = max(1, 10**7 // len(difference))  # numbers at a time: 80 MB, and a few such arrays
        test = permutation_test((difference,), np.mean, rng=numpy_generator(keys["permutation"]), **settings)
        rows.append((other, difference.mean(), *bootstrap_interval(difference, key=keys["interval"]), test.pvalue))
    tests = pd.DataFrame(rows, columns=["against", "difference", "low", "high", "p"])
    return tests.assign(p_holm=holm(tests.p))


def holm(p: Sequence[float] | Float[np.ndarray, " tests"] | pd.Series) -> Float[np.ndarray, " tests"]:
    r"""Return p-values corrected for how many there are (Holm 1979): whoever claims several things tests one family.

    The m-th smallest of M becomes the largest of $(M - l + 1)\, p_{(l)}$ over $l \le m$, at most 1.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def share_of_lift(
    values: pd.DataFrame,
    *,
    ceiling: str = "oracle: NDCG@10",
    floor: str = "popularity",
    metric: str = "NDCG@10",
    key: Key,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> pd.DataFrame:
    r"""Return each method's share of what could be gained: $(m - \text{floor}) / (\text{ceiling} - \text{floor})$.

    Means over the same users, each averaged over training seeds first. The interval is from users resampled jointly for
    the three. With a column ``world`` in values the share is the mean over worlds, and each resample draws worlds first
    and then users within them, so that the interval speaks of the next world too.

    Args:
        values: what ``evaluate`` returns; several of them, told apart by a column ``world``, may be stacked.
        ceiling, floor: the methods that stand at 1 and 0.

    Returns:
        Frame with columns ``method, share, low, high``, in the order of the methods. All three are NaN where the
        ceiling's own lift is within chance of zero in some world: a share of nothing says nothing.

    Raises:
        ValueError: a method or metric that was not evaluated.
    """
    import pandas as pd

    worlds = [part for _, part in values.groupby("world")] if "world" in values else [values]
    tables = [per_user(part, metric).dropna() for part in worlds]
    for name, method in (("ceiling", ceiling), ("floor", floor)):
        if any(method not in table for table in tables):
            raise ValueError(f"{name}: got {method!r}, expected one of {list(tables[0])}")
    methods = list(tables[0])
    keys = named_keys(key, "users", "worlds")
    rng = numpy_generator(keys["users"])
    points, samples = [], []
    for table in tables:
        lift = table[methods].to_numpy() - table[[floor]].to_numpy()
        top = methods.index(ceiling)
        means = _resampled_users(len(lift), resamples, rng) @ lift
        if np.quantile(means[:, top], (1 - confidence) / 2) <= 0:
            return pd.DataFrame({"method": methods, "share": np.nan, "low": np.nan, "high": np.nan})
        points.append(lift.mean(axis=0) / lift[:, top].mean())
        samples.append(means / means[:, [top]])
    chosen = numpy_generator(keys["worlds"]).integers(len(tables), size=(resamples, len(tables)))
    if len(tables) == 1:
        spread = samples[0]
    else:  # independent users for a world drawn twice: another row of its resamples
        rows = rng.integers(resamples, size=chosen.shape)
        spread = np.stack(samples)[chosen, rows].mean(axis=1)
    low, high = np.quantile(spread, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return pd.DataFrame({"method": methods, "share": np.mean(points, axis=0), "low": low, "high": high})


def by_group(
    values: pd.DataFrame, groups: Mapping, *, metric: str = "NDCG@10", against: str | None = None, key: Key
) -> pd.DataFrame:
    """Return results per group of users (quiet and active, ...), as a lead where ``against`` is given.

    Args:
        values: what ``evaluate`` returns.
        groups: user -> label (a dict or a pandas Series); users without a label are left out.
        against: the method whose value is subtracted from every user's, None for the values themselves.

    Returns:
        Frame with columns ``method, group, users, mean, low, high``; groups in the order of their labels.

    Raises:
        ValueError: a method or metric that was not evaluated, or no user with a label.
    """
    import pandas as pd

    table = per_user(values, metric)
    if against is not None and against not in table:
        raise ValueError(f"against: got {against!r}, expected one of {list(table)}")
    label = pd.Series(dict(groups)).reindex(table.index)
    if label.isna().all():
        raise ValueError(
            f"groups: got labels for none of the {len(table)} users, expected users such as {str(table.index[0])!r}"
        )
    if against is not None:
        table = table.sub(table[against], axis=0)
    rows = []
    for group in sorted(label.dropna().unique()):
        for method in table:
            part = table.loc[label == group, method].dropna().to_numpy()
            name = key_for(key_for(key, method), str(group))
            rows.append((method, group, len(part), part.mean(), *bootstrap_interval(part, key=name)))
    return pd.DataFrame(rows, columns=["method", "group", "users", "mean", "low", "high"])
