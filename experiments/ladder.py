"""The ladder on real data: every rung with its candidates, chosen on hidden training users, and the mixture of them.

Part of ``real_data.py``. Nothing here sees a test row.
"""

from typing import NamedTuple

import numpy as np

from rec_transfer import evaluation
from rec_transfer.evaluation.metrics import ndcg_at_k
from rec_transfer.keys import key_for, numpy_generator, once_per_key
from rec_transfer.maps import fit_ridge_map
from rec_transfer.methods import ensembles, fit_transfer, graphs, linear
from rec_transfer.models import VAE, VAEConfig, domain_axes, forms, train_vae
from rec_transfer.types import FitMethod, Interactions, Key, Scorer, Split, TrainingData

WORK = 1e9  # users x items x epochs of a VAE's training: some ten seconds on one core
VAE_RUNG, OURS, BARE = "VAE + ridge map", "mixture", "item cosine alone"
POWERS = tuple({"power": power} for power in (0.25, 0.5, 0.75, 1.0))
WEIGHTS = tuple({"weight": weight} for weight in (0.0, 0.3, 1.0, 3.0, 10.0, 30.0))
COSINE_WAYS = tuple({"power": power, "weight": weight} for power in (0.5, 1.0) for weight in (0.0001, 0.01, 0.1))


class Candidate(NamedTuple):
    """A setting of a rung, and the ways to put popularity in that are tried with it."""

    method: FitMethod
    ways: tuple[dict, ...]


def ladder(warm: bool) -> dict[str, dict[str, Candidate]]:
    """Return every tuned rung: name of the setting -> candidate. Axes are shared by the candidates that are made here.

    Args:
        warm: users have a target history, which methods that read one domain are given as columns of the source.
    """
    axes, joint = domain_axes(forms.normalised_graph, 256), graphs.joint_axes(256)
    cosine = {form.__name__: once_per_key(linear.item_cosine(form)) for form in (forms.binary, forms.log_scaled)}
    rungs = {
        "item cosine": {name: Candidate(method, COSINE_WAYS) for name, method in cosine.items()},
        "ridge + popularity": {
            f"penalty {penalty:g}": Candidate(linear.ridge(forms.unit_rows, penalty), WEIGHTS)
            for penalty in (10.0, 30.0, 100.0)
        },
        "EASE": {
            f"penalty {penalty:g}": Candidate(linear.ease(forms.unit_rows, penalty, single_domain=float(warm)), WEIGHTS)
            for penalty in (5.0, 15.0, 50.0)
        },
        "EMCDR (axes + map)": {
            f"{number} axes": Candidate(linear.emcdr(number, axes=axes), POWERS) for number in (16, 32, 64, 128, 256)
        }
        | {f"{number} centred axes": Candidate(linear.emcdr(number), POWERS) for number in (16, 32, 64)},
        "axes of both graphs": {
            f"{number} axes": Candidate(graphs.stacked_axes(number, axes=joint), POWERS)
            for number in (16, 32, 64, 128, 256)
        },
        "graph diffusion": {f"{steps} steps": Candidate(graphs.diffusion(steps), POWERS) for steps in (1, 2, 4, 8)},
    }
    if warm:  # ridge would learn to repeat the target history; EMCDR's map to itself is the one graph's axes
        del rungs["ridge + popularity"], rungs["EMCDR (axes + map)"]
        rungs["item cosine"] = {
            name: Candidate(graphs.with_target_history(method), COSINE_WAYS) for name, method in cosine.items()
        }
    return rungs


def vae_rung() -> FitMethod:
    """Return a VAE per domain with a ridge map between them; a domain's VAE is trained once per key."""
    vae_of = once_per_key(domain_vae)

    def fit(train: TrainingData, *, key: Key) -> Scorer:
        source, target = (vae_of(side, key=key) for side in (train.source, train.target))
        return fit_transfer(train, fit_ridge_map, source, target, key=key_for(key, "map"))

    return once_per_key(fit)


def domain_vae(domain: Interactions, *, key: Key) -> VAE:
    """Train the VAE of one domain: as many epochs as ``WORK`` allows, 2 to 60, of as many users."""
    items = domain.counts.shape[1]
    users = min(domain.counts.shape[0], int(WORK / items / 2))
    epochs = int(np.clip(WORK / items / users, 2, 60))
    config = VAEConfig(
        latent=32, hidden=64, epochs=epochs, anneal_epochs=epochs // 2, learning_rate=3e-3, batch_size=128
    )
    rows = np.sort(numpy_generator(key_for(key, "users")).permutation(domain.counts.shape[0])[:users])
    return train_vae(domain.counts[rows], key=key_for(key, domain.domain), config=config).model


def sampled_ndcg(scores: np.ndarray, split: Split, drawn: np.ndarray, *, key: Key) -> float:
    """Return the mean NDCG@10 of every hidden item among its sampled negatives, as ``measure`` reports it."""
    return float(ndcg_at_k(evaluation.ranks_among(scores, split.hidden, drawn, key=key).by_row(), 10).mean())


class Chosen(NamedTuple):
    """The rungs as hidden users would have them, and their mixture: part -> (method, weight); what was chosen."""

    rungs: dict[str, FitMethod]
    mixture: dict[str, tuple[FitMethod, float]]
    log: list


def choose(split: Split, negatives: int, warm: bool, *, fit_key: Key, key: Key) -> Chosen:
    """Choose every rung's setting, and the mixture's weights, by what hidden users like best.

    The judge is the protocol's own: the NDCG@10 of every hidden item among sampled negatives.
    """
    train, items = split.train, len(split.train.target.items)
    drawn = evaluation.draw_negatives(split, negatives, key=key)
    share = ensembles.shares(train)

    def judge(scores):
        return sampled_ndcg(scores, split, drawn, key=key)

    def scores_of(method):
        return evaluation.all_scores(method(train, key=fit_key), split.history, items)

    rungs, parts, log = {"popularity": evaluation.fit_popularity}, {}, []
    candidates_of = ladder(warm)
    for rung, candidates in candidates_of.items():
        best = -1.0
        for name, (method, ways) in candidates.items():
            scores = scores_of(method)
            for way in ways:
                value = judge(ensembles.add_popularity(scores, share, **way))
                if value > best:
                    best, setting, chosen, kept = value, name, (method, way), scores
        method, way = chosen
        added = (f"popularity {name} {number:g}" for name, number in way.items())
        log.append((rung, ", ".join([setting, *added]), best))
        rungs[rung] = ensembles.with_popularity(method, **way)
        lift = {name: number for name, number in way.items() if name == "power"}  # the mixture adds popularity itself
        lifted = ensembles.add_popularity(kept, share, **lift)
        parts[rung] = ensembles.with_popularity(method, **lift), ensembles.standardised(lifted)
    rungs[VAE_RUNG] = vae_rung()
    bare = candidates_of["item cosine"]["binary"].method
    for name, method in ((VAE_RUNG, rungs[VAE_RUNG]), (BARE, bare), ("popularity", evaluation.fit_popularity)):
        parts[name] = method, ensembles.standardised(scores_of(method))
    weights = ensembles.grow_mixture({name: scores for name, (_, scores) in parts.items()}, judge)
    mixed = sum(np.float32(weight) * parts[name][1] for name, weight in weights.items())
    log.append((OURS, " + ".join(f"{weight:.3g} {name}" for name, weight in weights.items()), judge(mixed)))
    return Chosen(rungs, {name: (parts[name][0], weight) for name, weight in weights.items()}, log)
