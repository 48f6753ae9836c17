"""The same model and training in PyTorch, as its users write it: ``dense`` and ``sparse``, in float32 or bfloat16.

dense: each batch is cut from the compressed rows and laid out dense. sparse: the first layer is a product of compressed
rows, forward and backward (PyTorch's own kernel; its derivative written by hand, as autograd's own is slower), and Adam
is the fused one: the quickest of what was tried. bfloat16 is ``torch.autocast``.
"""

import contextlib
import math
import time
import warnings

import numpy as np
import torch
from harness.clicks import HIDDEN, LATENT, first_weights
from torch import nn
from torch.nn import functional as F

BATCH, DROPOUT, RATE, ANNEAL, INPUT_NORM = 500, 0.5, 1e-3, 20, 3.0
warnings.filterwarnings("ignore", message="Sparse")  # CSR is "in beta", checks are off


class SparseProduct(torch.autograd.Function):
    """X @ W from compressed rows; backward X^T @ G from the compressed rows of X^T."""

    @staticmethod
    def forward(context, rows, columns, weights):
        context.columns = columns
        return rows @ weights

    @staticmethod
    def backward(context, gradient):
        return None, None, context.columns @ gradient


def compressed(matrix):
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*parts, size=matrix.shape)


class MultVAE(nn.Module):
    def __init__(self, items, sparse):
        super().__init__()
        weights = {name: torch.from_numpy(value) for name, value in first_weights(items).items()}
        first = weights["hidden"]  # [items, hidden], as the sparse product takes it; nn.Linear holds it transposed
        self.first = nn.Parameter(first.clone() if sparse else first.T.contiguous())
        self.first_bias = nn.Parameter(weights["hidden_bias"].clone())
        self.heads = nn.Linear(HIDDEN, 2 * LATENT)
        self.decoder = nn.Linear(LATENT, HIDDEN)
        self.logits = nn.Linear(HIDDEN, items)
        with torch.no_grad():
            both = [torch.cat([weights[f"mean{end}"], weights[f"log_variance{end}"]], -1) for end in ("", "_bias")]
            for layer, (weight, bias) in (
                (self.heads, both),
                (self.decoder, (weights["decoder"], weights["decoder_bias"])),
                (self.logits, (weights["logits"], weights["logits_bias"])),
            ):
                layer.weight.copy_(weight.T)
                layer.bias.copy_(bias)

    def encode(self, first):
        return self.heads(torch.tanh(first + self.first_bias)).float().chunk(2, -1)

    def decode(self, latent):
        return self.logits(torch.tanh(self.decoder(latent)))


class Trainer:
    def __init__(self, clicks, variant, epochs):
        layout, self.precision = variant.split("-")
        torch.manual_seed(0)
        self.rng = np.random.default_rng(0)
        self.clicks, self.train, self.sparse = clicks, clicks.train, layout == "sparse"
        self.model = MultVAE(self.train.shape[1], self.sparse)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=self.sparse)
        self.steps = -(-self.train.shape[0] // BATCH)
        updates = epochs * self.steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, updates) / updates))
        )
        self.done = 0

    def autocast(self):
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def first_layer(self, rows, training):
        """The first layer's product, and the batch's clicks."""
        batch = self.train[rows]
        if not self.sparse:
            counts = torch.from_numpy(batch.toarray())
            inputs = INPUT_NORM * F.normalize(counts.log1p())
            return F.linear(F.dropout(inputs, DROPOUT, training), self.model.first), counts
        values = np.log1p(batch.data)
        length = np.sqrt(np.bincount(np.repeat(np.arange(len(rows)), np.diff(batch.indptr)), values**2, len(rows)))
        values = torch.from_numpy((INPUT_NORM * values / np.repeat(length, np.diff(batch.indptr))).astype(np.float32))
        inputs = batch.copy()
        inputs.data = F.dropout(values, DROPOUT, training).numpy()
        columns = compressed(inputs.tocsc().T) if training else None
        with torch.autocast("cpu", enabled=False):
            return SparseProduct.apply(compressed(inputs), columns, self.model.first), batch

    def log_likelihood(self, logits, batch):
        if not self.sparse:
            return (F.log_softmax(logits.float(), -1) * batch).sum(-1)
        users = torch.from_numpy(np.repeat(np.arange(batch.shape[0]), np.diff(batch.indptr)))
        counts = torch.from_numpy(batch.data)
        clicked = logits[users, torch.from_numpy(batch.indices).long()].float() * counts
        clicks = torch.zeros(batch.shape[0]).index_add_(0, users, counts)
        explained = torch.zeros(batch.shape[0]).index_add_(0, users, clicked)
        return explained - clicks * torch.logsumexp(logits.float(), -1)

    def batch_loss(self, rows, epoch, training):
        with self.autocast():
            first, batch = self.first_layer(rows, training)
            mean, log_variance = self.model.encode(first)
            latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if training else mean
            logits = self.model.decode(latent)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
        return (-self.log_likelihood(logits, batch) + min(epoch / ANNEAL, 1.0) * kl).mean()

    def epoch(self):
        order, total = self.rng.permutation(self.train.shape[0]), 0.0
        for step in range(self.steps):
            loss = self.batch_loss(order[step * BATCH : (step + 1) * BATCH], self.done + step / self.steps, True)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        self.done += 1
        return total / self.steps

    @torch.no_grad()
    def loss(self):
        users = self.train.shape[0]
        parts = [np.arange(first, min(first + BATCH, users)) for first in range(0, users, BATCH)]
        return sum(len(rows) * self.batch_loss(rows, self.done, False).item() for rows in parts) / users

    @torch.no_grad()
    def rank(self, k=100):
        """NDCG@100 of the held-out clicks as Liang et al. (2018) do it: scores by batch, argpartition, sort of k."""
        train, held_out, found = self.train, self.clicks.held_out, []
        discount = 1 / np.log2(np.arange(2, k + 2))
        for first in range(0, train.shape[0], BATCH):
            rows = np.arange(first, min(first + BATCH, train.shape[0]))
            with self.autocast():
                product, _ = self.first_layer(rows, False)
                scores = self.model.decode(self.model.encode(product)[0]).float().numpy()
            scores[train[rows].nonzero()] = -np.inf
            here = np.arange(len(rows))[:, None]
            top = np.argpartition(-scores, k, axis=1)[:, :k]
            top = top[here, np.argsort(-scores[here, top], axis=1)]
            relevant = held_out[rows]
            gain = (relevant.toarray()[here, top] * discount).sum(axis=1)
            number = np.diff(relevant.indptr)
            found.append(gain / np.append(np.nan, discount.cumsum())[np.minimum(number, k)])
        return float(np.nanmean(np.concatenate(found)))

    def product(self, precision, side):
        left, right = (torch.randn(side, side).to(getattr(torch, precision)) for _ in range(2))
        start = time.perf_counter()
        left @ right
        return time.perf_counter() - start
