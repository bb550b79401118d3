"""Every registered head keeps the contract, and the contract finds those that do not."""

import pytest
import torch
from torch import Tensor, nn

from agebench.models import heads
from agebench.models.heads import AgeEstimate, Head
from agebench.plugins.testing import ContractViolation, check_head


@pytest.mark.parametrize("name", heads.names())
@pytest.mark.parametrize("ages", [(0, 100), (16, 77), (5, 6)])
def test_every_head_keeps_the_contract(name: str, ages: tuple[int, int]) -> None:
    check_head(name, ages=ages)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regression", {"loss": "l2"}),
        ("regression", {"loss": "huber", "delta": 2.0}),
        ("gaussian", {"beta": 0.0}),
        ("quantile", {"quantiles": [0.1, 0.5, 0.9]}),
        ("classification", {"decode": "median"}),
        ("sord", {"distance": "squared"}),
        ("or-cnn", {"importance": True}),
        ("coral", {"decode": "expectation"}),
        ("drf", {"trees": 1, "depth": 3, "units": 8}),
    ],
)
def test_options_keep_it_too(name: str, options: dict[str, object]) -> None:
    check_head(name, **options)


class Mine(Head):
    """A third party's head that is right."""

    def __init__(self, in_features: int, ages: tuple[int, int] = (0, 100)) -> None:
        super().__init__(in_features, ages)
        self.out_features = 1
        self.linear = nn.Linear(in_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        return (logits.float()[:, 0] - age / 100).abs().mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        return AgeEstimate((logits.float()[:, 0] * 100).clamp(float(self.ages[0]), float(self.ages[1])), None, None)


def test_a_third_partys_head_registers_and_passes() -> None:
    heads.heads.register("mine")(Mine)
    check_head("mine")
    assert "mine" in heads.names()
    assert isinstance(heads.create("mine", in_features=4), Mine)


class Unclamped(Mine):
    def decode(self, logits: Tensor) -> AgeEstimate:
        return AgeEstimate(logits[:, 0] * 100, None, None)


class Summed(Mine):
    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        return (logits[:, 0] - age).abs()


class Total(Mine):
    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        return (logits.float()[:, 0] - age).abs().sum()


class Relative(Mine):
    def decode(self, logits: Tensor) -> AgeEstimate:
        years = 50 + (logits.float()[:, 0] - logits.float()[:, 0].mean()) * 10
        return AgeEstimate(years.clamp(float(self.ages[0]), float(self.ages[1])), None, None)


class Indexed(Mine):
    def __init__(self, in_features: int, ages: tuple[int, int]) -> None:
        super().__init__(in_features, ages)
        self.linear = nn.Linear(in_features, ages[1] - ages[0] + 1)
        self.out_features = ages[1] - ages[0] + 1

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), age.round().long() - self.ages[0])


class Failing(Mine):
    def decode(self, logits: Tensor) -> AgeEstimate:
        raise RuntimeError("no tensors today")


class Overflowing(Mine):
    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        return logits.exp().mean() + (logits[:, 0] - age).abs().mean()


class Unscriptable(Mine):
    def decode(self, logits: Tensor) -> AgeEstimate:
        return AgeEstimate(
            torch.tensor([max(0.0, min(100.0, float(value))) for value in logits[:, 0].tolist()]), *[None, None]
        )


class Improbable(Mine):
    def decode(self, logits: Tensor) -> AgeEstimate:
        return AgeEstimate(super().decode(logits).age, torch.ones(len(logits), self.ages[1] - self.ages[0] + 1), None)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Unclamped, "decode leaves the head's ages"),
        (Summed, "it must be one number"),
        (Total, "not a sum"),
        (Relative, "another age alone than among others"),
        (Indexed, "outside the head's range raises IndexError; clamp the age"),
        (Failing, "decode raises RuntimeError: no tensors today"),
        (Overflowing, "not finite for logits"),
        (Unscriptable, "do not script"),
        (Improbable, "not a distribution"),
        (nn.Linear, "is no subclass"),
    ],
)
def test_a_breach_is_named(head: type[Head], message: str) -> None:
    with pytest.raises(ContractViolation, match=message):
        check_head(head)
