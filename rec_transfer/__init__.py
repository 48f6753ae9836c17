"""Carry a user's interests from one domain to another: the contents page.

A world with known interests, the platform's log it leaves behind, one VAE per domain, aligners fitted on overlapping
users, and an evaluation that ranks any function handed to it. Each name is imported when it is first asked for, so
that ``import rec_transfer`` costs next to nothing.
"""

from importlib import import_module

CONTENTS = {
    "types": ("TrainingData", "History"),
    "synthetic": ("WorldConfig", "make_world", "sample_population"),
    "event_log": ("read_log",),
    "big_logs": ("count_log",),
    "interactions": ("from_events", "cold_start"),
    "vae": ("VAEConfig", "train_vae", "posterior"),
    "sparse_training": ("train_vae_sparse",),
    "devices": ("all_devices", "share_of_users"),
    "workers": ("connect", "run_workers"),
    "checkpoints": ("save_vae", "load_vae"),
    "alignment": ("fit_ridge_map", "fit_mlp_map"),
    "closed_form_maps": ("fit_procrustes_map", "fit_cca_map", "fit_weighted_map"),
    "distribution_maps": ("fit_wasserstein_map", "fit_coral_map", "fit_mmd_map", "fit_adversarial_map"),
    "kernel_maps": ("fit_kernel_ridge_map", "fit_gaussian_process_map"),
    "network_maps": ("fit_contrastive_map", "fit_bridge_map"),
    "transfer": (
        "fit_transfer",
        "domain_vaes",
        "with_aligners",
        "unknown_user",
        "same_user",
        "averaged",
        "recommend",
        "reasons",
    ),
    "baselines": ("fit_random", "fit_popularity", "fit_item_cosine", "fit_ridge_counts", "fit_ease", "fit_emcdr"),
    "tuning": ("cross_validate", "tuned"),
    "shared_latents": ("fit_shared_latents",),
    "gaussian_process": ("fit_gaussian_process",),
    "oracle": ("with_oracle",),
    "datasets": ("fetch",),
    "loaders": ("read_ratings", "read_cdrib_pair", "read_movielens"),
    "protocols": ("leave_last_out", "leave_last_rows", "cold_start_rows", "summarise_rows"),
    "audit": ("identical_audiences", "duplicated_users", "rows_in_training", "without_leaks"),
    "twins": ("write_cdrib_pair", "write_ratings"),
    "evaluation": ("evaluate", "summarise", "paired_tests", "share_of_lift", "compare"),
    "overlap": ("overlap_lift", "lift_by_overlap"),
}
_HOME = {name: module for module, names in CONTENTS.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
