"""What travels between modules: refused where it is inconsistent, aligned where it claims to be."""

import jax
import jaxtyping
import numpy as np
import pytest
from scipy import sparse

from rec_transfer.types import Gaussian, Interactions, TrainingData


def domain(users, name="films", items=("F1", "F2", "F3")):
    """Counts whose rows tell whose they are: user ``u7`` has 7, 8 and 9 clicks."""
    rows = [[int(user[1:]) + column for column in range(len(items))] for user in users]
    counts = sparse.csr_array(np.array(rows, np.int32).reshape(len(users), len(items)))
    return Interactions(name, counts, np.array(users, dtype="U8"), np.array(items))


def test_interactions_refuse_ids_that_do_not_fit_the_matrix():
    counts = sparse.csr_array(np.ones((2, 3), int))
    with pytest.raises(ValueError, match=r"counts of 'films': got shape \(2, 3\), expected .* \(4, 3\)"):
        Interactions("films", counts, np.array(["a", "b", "c", "d"]), np.array(["x", "y", "z"]))
    with pytest.raises(ValueError, match=r"counts of 'films': got shape \(2, 3\), expected .* \(2, 1\)"):
        Interactions("films", counts, np.array(["a", "b"]), np.array(["x"]))


@pytest.mark.parametrize(
    ("users", "items", "named"),
    [(["a", "a"], ["x", "y", "z"], "users"), (["a", "b"], ["x", "y", "x"], "items")],
)
def test_interactions_refuse_repeated_ids(users, items, named):
    with pytest.raises(ValueError, match=f"{named} of 'books': got repeated ids, expected each id once"):
        Interactions("books", sparse.csr_array(np.ones((2, 3), int)), np.array(users), np.array(items))


def test_select_returns_rows_in_the_order_asked_for():
    chosen = domain(["u1", "u5", "u3"]).select(["u3", "u1"])
    assert chosen.users.tolist() == ["u3", "u1"]
    assert chosen.counts.toarray().tolist() == [[3, 4, 5], [1, 2, 3]]
    assert chosen.domain == "films"
    assert chosen.items.tolist() == ["F1", "F2", "F3"]


def test_selecting_nobody_leaves_the_catalogue():
    assert domain(["u1", "u5"]).select([]).counts.shape == (0, 3)


def test_select_names_users_it_does_not_know():
    with pytest.raises(KeyError, match=r"users not in 'films': \['u9'\] \(1 in all\)"):
        domain(["u1", "u5"]).select(["u5", "u9"])


def test_without_keeps_exactly_the_other_rows():
    rest = domain(["u1", "u5", "u3"]).without(["u5", "u9"])
    assert rest.users.tolist() == ["u1", "u3"]
    assert rest.counts.toarray().tolist() == [[1, 2, 3], [3, 4, 5]]


def test_training_data_without_a_common_user_is_refused():
    with pytest.raises(ValueError, match="users of 'films' and 'books': got no user active in both, expected"):
        TrainingData(domain(["u1", "u2"]), domain(["u3"], "books"))


def test_pairs_are_row_aligned_and_hold_the_overlapping_users_alone():
    train = TrainingData(domain(["u8", "u1", "u4", "u2"]), domain(["u2", "u9", "u8"], "books", ("B1", "B2")))
    assert train.overlapping_users.tolist() == ["u2", "u8"]
    source, target = train.pairs
    assert source.users.tolist() == target.users.tolist() == ["u2", "u8"]
    assert source.counts.toarray().tolist() == [[2, 3, 4], [8, 9, 10]]
    assert target.counts.toarray().tolist() == [[2, 3], [8, 9]]


def test_a_gaussian_is_a_pytree_whose_leaves_run_over_users():
    belief = Gaussian(np.arange(6.0).reshape(3, 2), np.arange(12.0).reshape(3, 2, 2))
    second = jax.tree.map(lambda array: array[1], belief)
    assert isinstance(second, Gaussian)
    assert second.mean.tolist() == [2.0, 3.0]
    assert second.covariance.tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_the_shapes_in_signatures_are_enforced_in_this_suite():
    from rec_transfer.models.likelihoods import gaussian_kl

    with pytest.raises(jaxtyping.TypeCheckError):
        gaussian_kl(jax.numpy.zeros((4, 2)), jax.numpy.zeros((4, 3)))
