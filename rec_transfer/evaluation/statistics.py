"""Values per user -> tables with intervals and paired tests."""

from collections.abc import Mapping

import numpy as np

from rec_transfer.keys import key_for, named_keys, numpy_generator
from rec_transfer.types import Key


def per_user(values, metric: str):
    """Frame [users, methods] of one metric, each user averaged over seeds; methods in the order evaluated.

    Raises:
        ValueError: a metric that was not measured.
    """
    chosen = values[values.metric == metric]
    if chosen.empty:
        raise ValueError(f"metric: got {metric!r}, expected one of {sorted(values.metric.unique())}")
    table = chosen.pivot_table(index="user", columns="method", values="value", aggfunc="mean", dropna=True)
    return table[list(dict.fromkeys(chosen.method))]


def summarise(values, *, key: Key, confidence: float = 0.95):
    """Mean over users of every method and metric with a bootstrap interval over users (averaged over seeds first).

    Returns:
        Frame with columns ``method, metric, mean, low, high, seed_spread`` (standard deviation over seeds of the mean).
    """
    import pandas as pd

    rows = []
    for metric in values.metric.unique():
        table = per_user(values, metric)
        for method in table:
            low, high = bootstrap_interval(table[method].to_numpy(), key=key_for(key, metric), confidence=confidence)
            seeds = values[(values.metric == metric) & (values.method == method)].groupby("seed").value.mean()
            rows.append((method, metric, table[method].mean(), low, high, seeds.std(ddof=0)))
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "low", "high", "seed_spread"])


def bootstrap_interval(values: np.ndarray, *, key: Key, confidence: float = 0.95, resamples: int = 2000):
    """Percentile bootstrap interval of a mean over users."""
    from scipy.stats import bootstrap

    values = values[~np.isnan(values)]
    result = bootstrap(
        (values,), np.mean, n_resamples=resamples, confidence_level=confidence, method="percentile",
        rng=numpy_generator(key),
    )  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_tests(values, method: str, *, metric: str = "NDCG@10", key: Key):
    """One method against every other on the same users: mean difference, its interval, and a permutation p-value.

    The signs of the users' differences are flipped at random (10,000 times, two-sided); ``p_holm`` corrects for the
    number of comparisons made here (Holm 1979).

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
        test = permutation_test(
            (difference,), np.mean, permutation_type="samples", n_resamples=9999, vectorized=True,
            rng=numpy_generator(keys["permutation"]),
        )  # fmt: skip
        rows.append((other, difference.mean(), *bootstrap_interval(difference, key=keys["interval"]), test.pvalue))
    tests = pd.DataFrame(rows, columns=["against", "difference", "low", "high", "p"])
    order = np.argsort(tests.p.to_numpy())
    corrected = np.maximum.accumulate(tests.p.to_numpy()[order] * np.arange(len(order), 0, -1))
    tests.loc[order, "p_holm"] = np.minimum(corrected, 1.0)
    return tests


def share_of_lift(
    values, *, ceiling: str = "oracle: NDCG@10", floor: str = "popularity", metric: str = "NDCG@10", key: Key,
    confidence: float = 0.95, resamples: int = 2000,
):  # fmt: skip
    r"""How much of what could be gained each method gains: $(m - \text{floor}) / (\text{ceiling} - \text{floor})$.

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
        users = rng.multinomial(len(lift), np.full(len(lift), 1 / len(lift)), size=resamples) / len(lift)
        means = users @ lift
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


def by_group(values, groups: Mapping, *, metric: str = "NDCG@10", against: str | None = None, key: Key):
    """Results per group of users (quiet and active, popular and rare taste, ...), as a lead where ``against`` is given.

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
