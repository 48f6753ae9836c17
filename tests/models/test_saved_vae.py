"""A checkpoint comes back bit by bit; anything else that claims to be one is refused in words."""

import ast
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rec_transfer
from rec_transfer.models.train import FORMAT, load_vae, posterior, save_vae
from rec_transfer.models.vae import VAE, VAEConfig

CONFIG = VAEConfig(latent=2, hidden=4, dropout=0.25, beta=0.5, epochs=7)


@pytest.fixture(scope="module")
def model():
    # Values that text or a narrower type would not keep.
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: VAE(6, CONFIG, key=jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "films.safetensors"
    save_vae(model, path)
    return path


def rewritten(path, *, arrays=None, **metadata):
    """The checkpoint with other arrays or metadata; None removes an entry."""
    known = {"format": FORMAT, "items": "6", "config": json.dumps(vars(CONFIG))} | metadata
    known = {name: value for name, value in known.items() if value is not None}
    save_file(load_file(path) if arrays is None else arrays, path, metadata=known)
    return path


def test_a_checkpoint_comes_back_bit_by_bit(model, saved):
    loaded = load_vae(saved)
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(loaded), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert (loaded.items, loaded.config) == (6, CONFIG)


def test_a_loaded_model_gives_the_same_posteriors_and_logits(split, vaes, tmp_path):
    save_vae(vaes[0], str(tmp_path / "films"))
    loaded = load_vae(str(tmp_path / "films"))
    here, there = (posterior(model, split.history.source) for model in (vaes[0], loaded))
    np.testing.assert_array_equal(here.mean, there.mean)
    np.testing.assert_array_equal(vaes[0].decoder(here.mean), loaded.decoder(there.mean))


def test_rewriting_what_was_saved_is_still_a_checkpoint(model, saved):
    # The guard of the refusals below: what they change is what makes them fail.
    loaded = load_vae(rewritten(saved))
    np.testing.assert_array_equal(loaded.decoder.logits.kernel[...], model.decoder.logits.kernel[...])


@pytest.mark.parametrize("share", [0, 3, 8, 60, 0.3, 0.6, 0.9, -1])
def test_a_file_cut_short_is_refused(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share) if isinstance(share, float) else share])
    with pytest.raises(ValueError, match=r"films\.safetensors: cut short or no checkpoint"):
        load_vae(saved)


@pytest.mark.parametrize("content", [b"user,item\nu1,F1\n" * 50, b"\xff" * 200, b"\x80\x04K*." * 10])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.csv: cut short or no checkpoint"):
        load_vae(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weights": np.ones((2, 3), np.float32)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors: got format None, expected 'rec_transfer\.vae/1'"):
        load_vae(path)


def test_a_format_of_another_version_is_refused(saved):
    with pytest.raises(ValueError, match=r"got format 'rec_transfer\.vae/2', expected 'rec_transfer\.vae/1'"):
        load_vae(rewritten(saved, format="rec_transfer.vae/2"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"items": None},
        {"items": "many"},
        {"items": "-3"},
        {"items": "0"},
        {"config": None},
        {"config": "{"},
        {"config": "[1, 2]"},
        {"config": json.dumps({"layers": 3})},
        {"config": json.dumps({"latent": 0})},
        {"config": json.dumps({"latent": "two"})},
    ],
)
def test_sizes_that_cannot_be_read_are_refused(saved, metadata):
    with pytest.raises(ValueError, match=r"films\.safetensors: its sizes cannot be read"):
        load_vae(rewritten(saved, **metadata))


@pytest.mark.parametrize("items", ["7", "1000000000000"])
def test_sizes_that_are_not_those_of_the_arrays_are_refused_before_memory_is_taken(saved, items):
    with pytest.raises(ValueError, match=r"arrays do not fit its configuration: \['decoder\.logits\.bias'"):
        load_vae(rewritten(saved, items=items))


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float16),
        lambda array: array.T.copy(),
        lambda array: array[:-1].copy(),
    ],
    ids=["type", "order", "length"],
)
def test_an_array_of_another_type_or_shape_is_refused_by_name(saved, change):
    arrays = load_file(saved)
    arrays["encoder.hidden.kernel"] = change(arrays["encoder.hidden.kernel"])
    with pytest.raises(ValueError, match=r"arrays do not fit its configuration: \['encoder\.hidden\.kernel'\]"):
        load_vae(rewritten(saved, arrays=arrays))


def test_arrays_missing_or_left_over_are_refused_by_name(saved):
    arrays = load_file(saved)
    arrays["encoder.extra"] = arrays.pop("encoder.mean.bias")
    with pytest.raises(ValueError, match=r"configuration: \['encoder\.extra', 'encoder\.mean\.bias'\]"):
        load_vae(rewritten(saved, arrays=arrays))


def test_a_missing_file_and_a_directory_are_told_apart_from_a_broken_one(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"path: got '.*', expected a checkpoint file"):
            load_vae(path)


# --- nothing that could run


def unsafe_loading(source):
    """What in a module's source could execute code from a file it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [
            name
            for name in names
            if name.split(".")[0] in {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
        ]
        if isinstance(node, ast.Attribute) and "pickle" in node.attr:
            found.append(node.attr)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append(node.arg)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
            found.append(node.func.id)
    return found


def test_the_search_for_unsafe_loading_finds_it():
    source = "import pickle\nfrom joblib import load\ndef f(p): return pd.read_pickle(p), np.load(p, allow_pickle=True)"
    assert sorted(unsafe_loading(source)) == ["allow_pickle", "joblib", "pickle", "read_pickle"]
    assert unsafe_loading("eval('1')") == ["eval"]


def test_no_module_of_the_package_unpickles_anything():
    modules = sorted(Path(rec_transfer.__file__).parent.rglob("*.py"))
    assert len(modules) > 10
    assert {path.name: found for path in modules if (found := unsafe_loading(path.read_text()))} == {}
