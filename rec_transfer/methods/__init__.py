"""Complete recommenders: ``fit(train, *, key) -> scorer``, and functions that make such methods from settings.

* ``baselines``: item cosine, ridge, EASE and EMCDR, each tuned in the same way
* ``linear``: the same four as functions of their settings, at any size
* ``graphs``: axes and walks of one graph of both domains
* ``ensembles``: popularity added to a method, averages and mixtures
* ``transfer``: a VAE per domain and a map between them
* ``shared_latents``, ``gaussian_process``: methods that carry the whole posterior across
* ``gains``: the expected gain of a list, which such methods rank by
* ``lists``: the k best items, and the reasons for one
"""

from rec_transfer.methods.baselines import (
    Candidates,
    ease_candidates,
    emcdr_candidates,
    fit_ease,
    fit_emcdr,
    fit_item_cosine,
    fit_ridge_counts,
    item_cosine_candidates,
    ridge_candidates,
)
from rec_transfer.methods.ensembles import (
    add_popularity,
    averaged,
    grow_mixture,
    mixture,
    shares,
    standardised,
    with_popularity,
)
from rec_transfer.methods.gains import GAINS, expected_gains, list_gains
from rec_transfer.methods.gaussian_process import GaussianProcessTransfer, fit_gaussian_process
from rec_transfer.methods.graphs import diffusion, joint_axes, stacked_axes, with_target_history
from rec_transfer.methods.linear import ease, ease_weights, emcdr, item_cosine, ridge
from rec_transfer.methods.lists import reasons, recommend
from rec_transfer.methods.shared_latents import InterestMap, SharedLatents, SharedTransfer, fit_shared_latents
from rec_transfer.methods.transfer import (
    DomainVAEs,
    Transfer,
    domain_vaes,
    fit_transfer,
    fused,
    same_user,
    unknown_user,
    with_maps,
)

__all__ = [
    "GAINS",
    "Candidates",
    "DomainVAEs",
    "GaussianProcessTransfer",
    "InterestMap",
    "SharedLatents",
    "SharedTransfer",
    "Transfer",
    "add_popularity",
    "averaged",
    "diffusion",
    "domain_vaes",
    "ease",
    "ease_candidates",
    "ease_weights",
    "emcdr",
    "emcdr_candidates",
    "expected_gains",
    "fit_ease",
    "fit_emcdr",
    "fit_gaussian_process",
    "fit_item_cosine",
    "fit_ridge_counts",
    "fit_shared_latents",
    "fit_transfer",
    "fused",
    "grow_mixture",
    "item_cosine",
    "item_cosine_candidates",
    "joint_axes",
    "list_gains",
    "mixture",
    "reasons",
    "recommend",
    "ridge",
    "ridge_candidates",
    "same_user",
    "shares",
    "stacked_axes",
    "standardised",
    "unknown_user",
    "with_maps",
    "with_popularity",
    "with_target_history",
]
