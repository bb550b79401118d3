"""A training loop in plain PyTorch that uses agebench only to judge: torchmetrics while training, `ab.score` at the end.

`python examples/judge_pytorch.py` trains a small network on generated features for a few seconds. Replace `make_data` and `Net`.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import agebench as ab
from agebench.integrations.torchmetrics import age_metrics


class Net(nn.Module):
    """A network that maps features (N, 16) to ages (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the ages in years of a batch of features (N, 16)."""
        ages: Tensor = 35 + 20 * self.layers(features).squeeze(1)
        return ages


def make_data(n: int, seed: int) -> TensorDataset:
    """Return features (n, 16), ages (n,) and people (n,), two faces of each person."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.arange(n) // 2
    ages = (8 + 60 * torch.rand(n, generator=generator)).round()
    features = torch.randn(n, 16, generator=generator)
    features[:, 0] += (ages - 35) / 15
    return TensorDataset(features, ages, people)


def train(epochs: int = 5) -> ab.ScoreReport:
    """Train, print the validation metrics of every epoch, and return the report on the test set."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    training, validation = DataLoader(make_data(1000, 1), 64, shuffle=True), DataLoader(make_data(400, 2), 64)
    metrics = age_metrics(["18@25"], prefix="val/")
    for epoch in range(1, epochs + 1):
        model.train()
        for features, ages, _ in training:
            optimizer.zero_grad()
            nn.functional.l1_loss(model(features), ages).backward()
            optimizer.step()
        model.eval()
        metrics.reset()
        with torch.inference_mode():
            for features, ages, _ in validation:
                metrics.update(model(features), ages)
        print(epoch, {name: round(value.item(), 3) for name, value in metrics.compute().items()})
    features, ages, people = make_data(600, 3).tensors  # the test set is read once, at the end
    with torch.inference_mode():
        estimates = model(features)
    return ab.score(ages.numpy(), estimates.numpy(), subjects=people.numpy(), require=["mae<=12"], resamples=200)


if __name__ == "__main__":
    report = train()
    print(report.to_frame().loc[["mae", "bias", "cs5"]], report.verdict, sep="\n")
