"""A Lightning module that uses agebench only to judge: its metrics are logged like any others of torchmetrics.

`python examples/judge_lightning.py` trains the network of `judge_pytorch.py` for a few seconds; needs `lightning`.
"""

import lightning
import torch
from judge_pytorch import Net, make_data
from torch import Tensor, nn
from torch.utils.data import DataLoader

from agebench.integrations.torchmetrics import age_metrics


class AgeModule(lightning.LightningModule):
    """An age estimator; Lightning adds its metrics over batches and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.val_metrics = age_metrics(["18@25"], prefix="val/")

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        features, ages, _ = batch
        return nn.functional.l1_loss(self.net(features), ages)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Add a batch to the metrics."""
        features, ages, _ = batch
        self.val_metrics.update(self.net(features), ages)
        self.log_dict(self.val_metrics, on_step=False, on_epoch=True)  # computed at the end of the epoch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def train(epochs: int = 3) -> dict[str, float]:
    """Train, and return the validation metrics of the last epoch."""
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(AgeModule(), DataLoader(make_data(1000, 1), 64, shuffle=True), DataLoader(make_data(400, 2), 64))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(train())
