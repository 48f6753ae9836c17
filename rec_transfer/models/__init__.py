"""One domain at a time: the VAE, the factor model, and what they are trained with.

===================  =====================================================================
``likelihoods``      log-likelihoods of counts, the KL term, ELBO and importance-weighted bound
``vae``              the network and its ELBO: the definition
``train``            train a VAE, its posteriors, save and load it
``compressed``       the same ELBO, and the scores of all items, on compressed rows
``sampled_softmax``  the log-likelihood from a sample of the items
``factor_model``     a logistic factor model, fitted by EM
``laplace``          Gaussian approximation of the likelihood of a user's clicks
``forms``            what counts are turned into before a linear method reads them
``axes``             the first axes of a domain's rows, and users on them
===================  =====================================================================
"""

# isort: off
from rec_transfer.models.likelihoods import (
    bernoulli_log_likelihood,
    multinomial_log_likelihood,
    gaussian_kl,
    elbo,
    importance_weighted_bound,
)
from rec_transfer.models.vae import (
    VAE,
    Decoder,
    Encoder,
    Objective,
    VAEConfig,
    encoder_input,
    reparameterize,
    annealed_beta,
    negative_elbo,
)
from rec_transfer.models.train import DENSE_CELLS, dense, train_vae, posterior, save_vae, load_vae
from rec_transfer.models.compressed import (
    LOSSES,
    PRECISIONS,
    Precision,
    dense_layer,
    input_values,
    scores,
    softmax_layer,
    sparse_negative_elbo,
    sparse_product,
    standard_normal,
)
from rec_transfer.models.sampled_softmax import (
    Clicked,
    ItemSampler,
    Sample,
    SampledBatch,
    clicked_items,
    item_sampler,
    sample_at,
    sample_items,
    sampled_log_likelihood,
    sampled_negative_elbo,
)
from rec_transfer.models.factor_model import (
    FactorModel,
    factor_log_likelihood,
    evidence_of,
    fit_factor_model,
    domain_factor_models,
)
from rec_transfer.models.laplace import (
    Evidence,
    no_evidence,
    approximate,
    posterior_of,
    log_marginal,
    log_marginal_of_all,
    resample,
)

from rec_transfer.models.forms import (
    DomainForm,
    FitForm,
    Form,
    binary,
    both_domains,
    centred,
    column_scaled,
    log_scaled,
    normalised_graph,
    raw,
    unit_rows,
)
from rec_transfer.models.axes import Axes, FitAxes, coordinates, domain_axes, leading_axes

__all__ = [
    "DENSE_CELLS",
    "LOSSES",
    "PRECISIONS",
    "VAE",
    "Axes",
    "Clicked",
    "Decoder",
    "DomainForm",
    "Encoder",
    "Evidence",
    "FactorModel",
    "FitAxes",
    "FitForm",
    "Form",
    "ItemSampler",
    "Objective",
    "Precision",
    "Sample",
    "SampledBatch",
    "VAEConfig",
    "annealed_beta",
    "approximate",
    "bernoulli_log_likelihood",
    "binary",
    "both_domains",
    "centred",
    "clicked_items",
    "column_scaled",
    "coordinates",
    "dense",
    "dense_layer",
    "domain_axes",
    "domain_factor_models",
    "elbo",
    "encoder_input",
    "evidence_of",
    "factor_log_likelihood",
    "fit_factor_model",
    "gaussian_kl",
    "importance_weighted_bound",
    "input_values",
    "item_sampler",
    "leading_axes",
    "load_vae",
    "log_marginal",
    "log_marginal_of_all",
    "log_scaled",
    "multinomial_log_likelihood",
    "negative_elbo",
    "no_evidence",
    "normalised_graph",
    "posterior",
    "posterior_of",
    "raw",
    "reparameterize",
    "resample",
    "sample_at",
    "sample_items",
    "sampled_log_likelihood",
    "sampled_negative_elbo",
    "save_vae",
    "scores",
    "softmax_layer",
    "sparse_negative_elbo",
    "sparse_product",
    "standard_normal",
    "train_vae",
    "unit_rows",
]
