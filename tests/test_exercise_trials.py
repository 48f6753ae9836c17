"""Answers that readers tried: right ones in another style, which a check accepts, and wrong ones, which it refuses."""

import contextlib
import io

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import student_copies
from test_student_copies import ROOT, described, outcome, run

RIGHT, WRONG = True, False
TRIALS = {
    "05_elbo": [
        (1, RIGHT, """
            def perplexity(logits, counts):
                rows = []
                for row, clicks in zip(np.asarray(logits), np.asarray(counts)):
                    log_shares = np.log2(np.exp(row - row.max()) / np.exp(row - row.max()).sum())
                    rows.append(2 ** (-(clicks @ log_shares) / clicks.sum()))
                return np.array(rows)"""),
        (1, WRONG, "perplexity = lambda logits, counts: np.full(len(logits), 199.9999)"),
        (1, WRONG, """
            def perplexity(logits, counts):  # pooled over users
                total = np.sum(counts * log_softmax(logits, axis=-1)) / counts.sum()
                return np.full(len(logits), np.exp(-total))"""),
        (1, WRONG, """
            def perplexity(logits, counts):  # repeats ignored
                counts = np.asarray(counts) > 0
                return np.exp(-np.sum(counts * log_softmax(logits, axis=-1), axis=-1) / counts.sum(axis=-1))"""),
        (1, WRONG, """
            def perplexity(logits, counts):  # arithmetic mean of 1 / p
                return np.sum(counts * np.exp(-log_softmax(logits, axis=-1)), axis=-1) / counts.sum(axis=-1)"""),
        (2, RIGHT, """
            def stable_bernoulli_loss(logits, clicked):
                return np.logaddexp(0, np.where(clicked > 0, -logits, logits)).sum(axis=-1)"""),
        (2, WRONG, """
            def stable_bernoulli_loss(logits, clicked):  # the hint transcribed
                return jnp.sum(jnp.log(1 + jnp.exp(logits)) - clicked * logits, axis=-1)"""),
        (2, WRONG, "stable_bernoulli_loss = lambda logits, clicked: jax.nn.softplus(logits) - clicked * logits"),
        (3, RIGHT, "diagonal_of_correlated = lambda r: (np.full(2, 1 - r**2), -0.5 * np.log(1 - r**2))"),
        (3, WRONG, "diagonal_of_correlated = lambda r: (1.0, -0.5 * np.log(1 - r**2))"),
        (5, WRONG, """
            def predicted_gap(v, k):  # k - 1 for k
                return np.inf if v <= 0.5 else (v / np.sqrt(2 * v - 1) - 1) / (2 * max(k - 1, 1e-9))"""),
        (5, WRONG, """
            def predicted_gap(v, k):  # eight per cent too large
                return np.inf if v <= 0.5 else 1.08 * (v / np.sqrt(2 * v - 1) - 1) / (2 * k)"""),
        (5, WRONG, """
            def predicted_gap(v, k):  # the border forgotten
                return np.inf if v < 0.5 else (v / np.sqrt(max(2 * v - 1, 1e-6)) - 1) / (2 * k)"""),
    ],
    "06_reparameterization": [
        (1, RIGHT, "draw = lambda mean, log_variance, noise: mean + np.exp(0.5 * log_variance) * noise"),
        (1, WRONG, "draw = lambda mean, log_variance, noise: mean + np.exp(log_variance) * noise"),
        (1, WRONG, """
            def draw(mean, log_variance, noise):
                return mean + jax.lax.stop_gradient(jnp.exp(0.5 * log_variance)) * noise"""),
        (2, WRONG, "laplace = lambda location, scale, uniform: stats.laplace(location, scale).ppf(uniform)"),
        (3, RIGHT, """
            def linear_variances(a, mean, deviation):
                both = a @ a + a[0] ** 2
                return np.array([0, both + (a @ mean / deviation) ** 2, both])"""),
        (3, WRONG, """
            def linear_variances(a, mean, deviation):  # simulated
                noise = np.random.default_rng(3).normal(size=(200_000, len(a)))
                f = (mean + deviation * noise) @ a
                score = noise[:, 0] / deviation
                return 0.0, np.var(f * score), np.var((f - a @ mean) * score)"""),
        (4, WRONG, """
            def leave_one_out(values, scores):  # the sample before is the baseline
                return np.mean((values - np.roll(values, 1))[:, None] * scores, axis=0)"""),
        (6, RIGHT, """
            def landing(parameters, noise, log_joint):
                mean, log_deviation = parameters
                deviation = jnp.exp(log_deviation)
                z = mean + deviation * noise
                slope = jax.grad(log_joint)(z) + noise / deviation
                log_q = jax.scipy.stats.norm.logpdf(z, mean, deviation)
                return log_joint(z) - log_q, jnp.stack([slope, slope * deviation * noise])"""),
    ],
    "07_kl_term": [
        (2, WRONG, """
            def kl_between(mean, variance, other_mean, other_variance):  # over users too
                ratio = variance / other_variance
                return 0.5 * np.sum(ratio - 1 - np.log(ratio) + (mean - other_mean) ** 2 / other_variance)"""),
        (3, WRONG, """
            def best_factorised(covariance):  # two coordinates only
                r2 = covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1])
                return np.diag(covariance) * (1 - r2), np.diag(covariance)"""),
        (4, WRONG, "active_units = lambda mean, threshold=0.01: np.ptp(mean, axis=0) ** 2 / 12 > threshold"),
        (5, WRONG, """
            def split_rate(mean, log_variance, rng, samples=20):  # samples ignored
                std = np.exp(0.5 * log_variance)
                z = mean + std * rng.normal(size=mean.shape)
                log_all = norm.logpdf(z[:, None], mean, std).sum(axis=2)
                pooled = logsumexp(log_all, axis=1) - np.log(len(mean))
                return np.mean(np.diag(log_all) - pooled), np.mean(pooled - norm.logpdf(z).sum(axis=1))"""),
    ],
    "13_evaluation": [
        (1, WRONG, """
            def tie_range(scores, relevant, k):  # forty orders at random
                drawn = [
                    metrics.hit_rate_at_k(ranks(np.asarray(scores, float), relevant, key=jax.random.key(s)), k)
                    for s in range(40)
                ]
                return np.max(drawn, axis=0), np.min(drawn, axis=0)"""),
        (2, WRONG, "expected_sampled_rr = lambda full, others, n: 1 / (1 + n * (np.asarray(full) - 1) / others)"),
        (3, RIGHT, """
            def users_needed(first, second, effect, power=0.8, level=0.05):
                spread = np.std(first - second, ddof=1)
                return np.ceil(((norm.ppf(1 - level / 2) + norm.ppf(power)) * spread / effect) ** 2)"""),
        (3, WRONG, """
            def users_needed(first, second, effect, power=0.8, level=0.05):  # ddof = 0
                spread = np.std(first - second)
                return int(np.ceil(((norm.ppf(1 - level / 2) + norm.ppf(power)) * spread / effect) ** 2))"""),
        (4, RIGHT, """
            def near_twins(first, second, similar=0.8, at_least=3):  # lists, one pair at a time
                sets = [[set(np.flatnonzero(column)) for column in np.asarray(side).T] for side in (first, second)]
                return [
                    [i, j]
                    for i, one in enumerate(sets[0])
                    for j, two in enumerate(sets[1])
                    if min(len(one), len(two)) >= at_least and len(one & two) >= similar * len(one | two)
                ]"""),
        (4, WRONG, """
            def near_twins(first, second, similar=0.8, at_least=3):  # of the smaller audience
                one, two = (np.asarray(side) > 0 for side in (first, second))
                both = one.T.astype(float) @ two
                size = one.sum(axis=0)[:, None], two.sum(axis=0)[None]
                close = (both >= similar * np.minimum(*size)) & (np.minimum(*size) >= at_least)
                return [tuple(map(int, pair)) for pair in np.argwhere(close)]"""),
    ],
}  # fmt: skip


def dedented(source):
    lines = source.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_right_answers_pass_and_wrong_ones_are_refused_with_a_reason(name, monkeypatch, tmp_path):
    monkeypatch.setenv("REC_TRANSFER_FIGURES", str(tmp_path))
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook, names, found = nbformat.read(path, as_version=4), {"__name__": "__main__"}, []
    checks = {one.number: notebook.cells[one.check].source for one in student_copies.find_exercises(notebook, name)}
    with contextlib.chdir(path.parent), mpl.rc_context(), np.printoptions(), contextlib.redirect_stdout(io.StringIO()):
        mpl.use("Agg")
        run(next(cell.source for cell in notebook.cells if "setup" in student_copies.tags(cell)), names, name)
        for number, right, source in TRIALS[name]:
            with np.errstate(all="ignore"):
                error = outcome(dedented(source), checks[number], names, f"{name}, exercise {number}")
            if (error is None) != right or not isinstance(error, AssertionError | None):
                found.append(f"exercise {number}, {source.strip()[:60]!r}: {described(error)[:300]}")
    assert not found, "\n".join(found)
