"""From one domain's latent space to another's: maps of posteriors, fitted on the overlapping users.

Every map is fitted by ``fit_..._map(pairs, *, unpaired, decode, key)`` and maps ``Gaussian -> Gaussian``.

=================  ==========================================================================
``ridge``          ridge regression with exact leave-one-out predictions
``base``           linear maps, averages of networks, residual covariance, folds of the pairs
``linear``         ridge, Procrustes, canonical correlation, errors in variables
``kernels``        kernel ridge and a Gaussian process
``networks``       networks that start at the ridge map: MLP, contrastive, a bridge per user
``transport``      the optimal transport between the domains' distributions, and CORAL
``distributions``  networks trained to match those distributions: MMD, adversarial
=================  ==========================================================================
"""

# isort: off
from rec_transfer.maps.ridge import PENALTIES, Ridge, fit_ridge
from rec_transfer.maps.base import (
    FOLDS,
    LinearMap,
    MeanMap,
    residual_covariance,
    sample_posterior,
    mean_map,
    split_folds,
    average_over_folds,
    dense_counts,
    take_rows,
)
from rec_transfer.maps.linear import (
    Affine,
    fit_ridge_map,
    procrustes,
    fit_procrustes_map,
    canonical_regression,
    fit_cca_map,
    target_evidence,
    errors_in_variables,
    fit_weighted_map,
)
from rec_transfer.maps.kernels import (
    KernelMap,
    KernelRidge,
    expected_kernel,
    kernel_ridge,
    fit_kernel_ridge_map,
    condition,
    log_normal_density,
    expected_covariance,
    standardise_gaussian,
    fit_gaussian_process_map,
)
from rec_transfer.maps.networks import (
    MLPMap,
    decoded_loss,
    fit_mlp_map,
    contrastive_loss,
    fit_contrastive_map,
    BridgeMap,
    fit_bridge_map,
)
from rec_transfer.maps.transport import (
    moments,
    matrix_power,
    transport_matrix,
    fit_wasserstein_map,
    recolouring_matrix,
    fit_coral_map,
)
from rec_transfer.maps.distributions import (
    squared_distances,
    squared_mmd,
    kernel_widths,
    loss_per_click,
    PairTerm,
    MMDContext,
    mmd_loss,
    fit_mmd_map,
    reverse_gradient,
    adversarial_loss,
    fit_adversarial_map,
)

__all__ = [
    "FOLDS",
    "PENALTIES",
    "Affine",
    "BridgeMap",
    "KernelMap",
    "KernelRidge",
    "LinearMap",
    "MLPMap",
    "MMDContext",
    "MeanMap",
    "PairTerm",
    "Ridge",
    "adversarial_loss",
    "average_over_folds",
    "canonical_regression",
    "condition",
    "contrastive_loss",
    "decoded_loss",
    "dense_counts",
    "errors_in_variables",
    "expected_covariance",
    "expected_kernel",
    "fit_adversarial_map",
    "fit_bridge_map",
    "fit_cca_map",
    "fit_contrastive_map",
    "fit_coral_map",
    "fit_gaussian_process_map",
    "fit_kernel_ridge_map",
    "fit_mlp_map",
    "fit_mmd_map",
    "fit_procrustes_map",
    "fit_ridge",
    "fit_ridge_map",
    "fit_wasserstein_map",
    "fit_weighted_map",
    "kernel_ridge",
    "kernel_widths",
    "log_normal_density",
    "loss_per_click",
    "matrix_power",
    "mean_map",
    "mmd_loss",
    "moments",
    "procrustes",
    "recolouring_matrix",
    "residual_covariance",
    "reverse_gradient",
    "sample_posterior",
    "split_folds",
    "squared_distances",
    "squared_mmd",
    "standardise_gaussian",
    "take_rows",
    "target_evidence",
    "transport_matrix",
]
