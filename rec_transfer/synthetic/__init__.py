"""Worlds whose truth is known: sampled users, their log, and the best list that anyone could make.

No other room imports this one: a method that looked into the world would prove nothing.

=====================  ====================================================================
``world``              a world of several domains, and users sampled from it
``decoder``            what item vectors weigh: the interest itself, or a hidden layer's view of it
``naming``             made-up handles, titles, genres and prices
``log_writer``         a population as a platform's log, clean or damaged
``published_formats``  small files in the formats of the public data sets
``oracle``             the Bayes ceiling: scores by the true posterior
``tempering``          posteriors that no Gaussian comes near, for the oracle
``truth``              methods that are told part of the truth, for experiments on what limits transfer
=====================  ====================================================================
"""

# isort: off
from rec_transfer.synthetic.world import (
    ROLES,
    World,
    WorldConfig,
    Catalogue,
    Population,
    make_world,
    sample_population,
    shown_interests,
    common_interests,
    click_probabilities,
)
from rec_transfer.synthetic.decoder import DECODERS, HiddenLayer, item_features
from rec_transfer.synthetic.naming import THEMES, genre, prices, titles, user_handles
from rec_transfer.synthetic.log_writer import CLEAN, Dirt, write_log
from rec_transfer.synthetic.published_formats import write_cdrib_pair, write_ratings
from rec_transfer.synthetic.oracle import (
    Domain,
    Draws,
    OracleScores,
    domain_of,
    true_scores,
    true_log_likelihood,
    draw_posterior,
    posterior_gains,
    diagnose,
    score_users,
    with_oracle,
)

__all__ = [
    "CLEAN",
    "DECODERS",
    "ROLES",
    "THEMES",
    "Catalogue",
    "Dirt",
    "Domain",
    "Draws",
    "HiddenLayer",
    "OracleScores",
    "Population",
    "World",
    "WorldConfig",
    "click_probabilities",
    "common_interests",
    "diagnose",
    "domain_of",
    "draw_posterior",
    "genre",
    "item_features",
    "make_world",
    "posterior_gains",
    "prices",
    "sample_population",
    "score_users",
    "shown_interests",
    "titles",
    "true_log_likelihood",
    "true_scores",
    "user_handles",
    "with_oracle",
    "write_cdrib_pair",
    "write_log",
    "write_ratings",
]
