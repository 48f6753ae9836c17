"""RecBole's MultiVAE on the same clicks: its own loader, loss, Adam and evaluation, called an epoch at a time.

Three things are set right first: names that NumPy 2 no longer has, a split handed over instead of drawn, and the
batch of its evaluation (4,096 scores by default, two users' here). Its noise has standard deviation .01, its inputs
have length 1, its weights are Xavier's, and its step size does not decay.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
from harness.clicks import HIDDEN, LATENT

for old, new in {"float_": np.float64, "int_": np.int64, "bool8": np.bool_, "complex_": np.complex128,
                 "unicode_": np.str_, "string_": np.bytes_, "object0": np.object_}.items():  # fmt: skip
    if not hasattr(np, old):
        setattr(np, old, new)

from recbole.config import Config  # noqa: E402 - after the names
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.general_recommender.multivae import MultiVAE  # noqa: E402
from recbole.utils import get_trainer  # noqa: E402


class Trainer:
    def __init__(self, clicks, variant, epochs):
        self.folder = tempfile.TemporaryDirectory()  # kept until the process ends
        folder = Path(self.folder.name)
        (folder / "clicks").mkdir()
        for name, matrix in (("train", clicks.train), ("valid", clicks.held_out[:1]), ("test", clicks.held_out)):
            users, items = matrix.nonzero()
            with (folder / "clicks" / f"clicks.{name}.inter").open("w") as file:
                file.write("user_id:token\titem_id:token\n")
                file.writelines(f"{user}\t{item}\n" for user, item in zip(users, items, strict=True))
        steps = -(-clicks.train.shape[0] // 500)
        config = Config(
            model="MultiVAE",
            dataset="clicks",
            config_dict={
                "data_path": str(folder), "checkpoint_dir": str(folder),
                "benchmark_filename": ["train", "valid", "test"],
                "load_col": {"inter": ["user_id", "item_id"]}, "use_gpu": False, "state": "ERROR",
                "mlp_hidden_size": [HIDDEN], "latent_dimension": LATENT, "dropout_prob": 0.5, "anneal_cap": 1.0,
                "total_anneal_steps": 20 * steps, "train_batch_size": 500, "learning_rate": 1e-3, "epochs": epochs,
                "eval_batch_size": 500 * (clicks.train.shape[1] + 1), "metrics": ["NDCG"], "topk": [100],
                "valid_metric": "NDCG@100", "eval_args": {"mode": "full", "order": "RO", "group_by": "user"},
                "show_progress": False, "reproducibility": False,
            },
        )  # fmt: skip
        logging.disable(logging.CRITICAL)
        dataset = create_dataset(config)
        self.train, _, self.test = data_preparation(config, dataset)
        model = MultiVAE(config, self.train.dataset)
        self.trainer, self.done, self.steps = (
            get_trainer(config["MODEL_TYPE"], config["model"])(config, model),
            0,
            steps,
        )

    def epoch(self):
        total = self.trainer._train_epoch(self.train, self.done, show_progress=False)
        self.done += 1
        return total / self.steps

    def rank(self):
        return float(self.trainer.evaluate(self.test, load_best_model=False)["ndcg@100"])
