"""Cornac's VAECF on the same clicks, an epoch at a time, and its evaluation of a list of held-out clicks.

It trains without dropout, annealing, decay of the step size or shuffling, reads the clicks unscaled, and returns no
loss.
"""

from cornac.data import Dataset
from cornac.eval_methods.base_method import ranking_eval
from cornac.metrics import NDCG
from cornac.models import VAECF
from harness.clicks import HIDDEN, LATENT


def dataset(matrix, users, items):
    rows, columns = matrix.nonzero()
    clicks = zip(rows.tolist(), columns.tolist(), [1.0] * len(rows), strict=True)
    return Dataset.build(list(clicks), global_uid_map=users, global_iid_map=items, exclude_unknowns=False)


class Trainer:
    def __init__(self, clicks, variant, epochs):
        users, items = ({number: number for number in range(length)} for length in clicks.train.shape)
        self.train, self.held_out = (dataset(matrix, users, items) for matrix in clicks)
        self.model = VAECF(
            k=LATENT, autoencoder_structure=[HIDDEN], act_fn="tanh", likelihood="mult", n_epochs=1, batch_size=500,
            learning_rate=1e-3, beta=1.0, seed=0,
        )  # fmt: skip

    def epoch(self):
        self.model.fit(self.train)  # goes on from where it is, with a fresh Adam

    def rank(self):
        average, _ = ranking_eval(self.model, [NDCG(k=100)], self.train, self.held_out)
        return float(average[0])
