"""Losses against independent implementations, slow loops written from the papers, and numerical gradients."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from coral_pytorch.dataset import levels_from_labelbatch
from coral_pytorch.losses import coral_loss, corn_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agebench.models import heads
from agebench.models.age_model import AgeModel
from agebench.models.backbones import TinyCNN
from agebench.models.heads import Head
from agebench.models.heads.drf import DRFHead
from agebench.models.heads.ordinal import OrdinalHead

AGES = (0, 20)
GENERATOR = torch.Generator().manual_seed(0)
AGE = torch.tensor([0.0, 3.0, 7.0, 12.0, 20.0])


@pytest.fixture(autouse=True)
def own_numbers() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    GENERATOR.manual_seed(0)
    torch.manual_seed(0)


def head(name: str, **options: Any) -> Head:
    return heads.create(name, in_features=4, ages=AGES, **options).double().eval()


def logits_for(made: Head) -> Tensor:
    return torch.randn(len(AGE), made.out_features, generator=GENERATOR, dtype=torch.float64) * 2


@pytest.mark.parametrize("name", heads.names())
@pytest.mark.parametrize("age", [AGE, AGE + 0.37])
def test_gradients_are_the_losss_own(name: str, age: Tensor) -> None:
    # beta-NLL holds its weight constant: its gradient is not that of a function.
    made = head(name, beta=0.0) if name == "gaussian" else head(name)
    logits = logits_for(made).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: made.loss(values, age.double()), (logits,), atol=1e-6)


@pytest.mark.parametrize("name", heads.names())
def test_nothing_is_rounded_under_autocast(name: str) -> None:
    made = heads.create(name, in_features=4, ages=(0, 100)).eval()
    logits, age = torch.randn(16, made.out_features, generator=GENERATOR) * 3, torch.linspace(0, 99, 16)
    losses, slopes, ages = [], [], []
    for mixed in (False, True):
        values = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses.append(made.loss(values, age))
            ages.append(made.decode(values).age)
        slopes.append(torch.autograd.grad(losses[-1], values)[0])
    for plain, under_autocast in (losses, slopes, ages):
        torch.testing.assert_close(under_autocast, plain)


@pytest.mark.parametrize("name", heads.names())
def test_heads_and_tasks_of_a_model_are_not_rounded_under_autocast(name: str) -> None:
    model = AgeModel(TinyCNN((4, 8)), heads.create(name, in_features=8)).eval()
    model.add_task("gender", ("female", "male"))
    features, images = torch.randn(16, 8, generator=GENERATOR), torch.randn(4, 3, 16, 16, generator=GENERATOR)
    plain = model(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(features), plain)
        rounded = model.backbone(images)
        logits = model(images)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(logits, model(rounded.float()))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


@pytest.mark.parametrize("name", ["classification", "dldl-v2", "mean-variance", "mean-residue", "sord", "unimodal"])
def test_loss_second_derivative(name: str) -> None:
    model_head = head(name)
    logits = logits_for(model_head).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda values: model_head.loss(values, AGE.double()), (logits,), atol=1e-5)


def test_coral_is_coral_pytorchs() -> None:
    made = head("coral")
    logits = logits_for(made)
    levels = levels_from_labelbatch(AGE.long(), num_classes=21).double()
    torch.testing.assert_close(made.loss(logits, AGE), coral_loss(logits, levels).double())


def test_corn_is_coral_pytorchs() -> None:
    made = head("corn")
    logits = logits_for(made)
    torch.testing.assert_close(made.loss(logits, AGE), corn_loss(logits, AGE.long(), num_classes=21).double())


def test_or_cnn_is_the_papers() -> None:
    made = head("or-cnn")
    logits = logits_for(made)
    total = 0.0
    for row, age in zip(logits, AGE, strict=True):
        for k, logit in enumerate(row):
            yes = 1 / (1 + math.exp(-float(logit)))
            total -= math.log(yes) if float(age) > k else math.log(1 - yes)
    assert float(made.loss(logits, AGE)) == pytest.approx(total / len(AGE))


def test_dldl_is_the_papers() -> None:
    made = head("dldl", sigma=2.0)
    logits = logits_for(made)
    total = 0.0
    for row, age in zip(logits, AGE, strict=True):
        density = [math.exp(-((j - float(age)) ** 2) / (2 * 2.0**2)) for j in range(21)]
        label = [value / sum(density) for value in density]
        probs = [math.exp(float(value)) / float(row.exp().sum()) for value in row]
        total += sum(t * math.log(t / p) for t, p in zip(label, probs, strict=True) if t > 0)
    assert float(made.loss(logits, AGE)) == pytest.approx(total / len(AGE))
    second = head("dldl-v2", sigma=2.0, weight=0.7)
    expectation = (logits.softmax(1) * torch.arange(21)).sum(1)
    assert float(second.loss(logits, AGE)) == pytest.approx(
        total / len(AGE) + 0.7 * float((expectation - AGE).abs().mean())
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("classification", {}),
        ("dldl", {"sigma": 0.03}),
        ("sord", {"scale": 600.0}),
        ("sord", {"scale": 600.0, "distance": "squared"}),
    ],
)
def test_very_narrow_labels_share_a_fractional_age_between_its_neighbors(name: str, options: dict[str, Any]) -> None:
    made = head(name, **options)
    if name == "classification":
        made.smooth_labels(0.03)
    logits = torch.zeros(3, 21, dtype=torch.float64, requires_grad=True)
    made.loss(logits, torch.tensor([7.5, 11.7, 4.0], dtype=torch.float64)).backward()
    assert logits.grad is not None
    labels = 1 / 21 - 3 * logits.grad  # the gradient of a cross-entropy is softmax - label
    expected = torch.zeros(3, 21, dtype=torch.float64)
    expected[0, [7, 8]], expected[1, 12], expected[2, 4] = 0.5, 1.0, 1.0
    torch.testing.assert_close(labels, expected)


@pytest.mark.parametrize(("distance", "power"), [("absolute", 1), ("squared", 2)])
def test_sord_is_the_papers(distance: str, power: int) -> None:
    made = head("sord", distance=distance)
    logits = logits_for(made)
    total = 0.0
    for row, age in zip(logits, AGE, strict=True):
        soft = [math.exp(-(abs(j - float(age)) ** power)) for j in range(21)]
        total -= sum(value / sum(soft) * float(logp) for value, logp in zip(soft, row.log_softmax(0), strict=True))
    assert float(made.loss(logits, AGE)) == pytest.approx(total / len(AGE))


def test_mean_variance_is_the_papers() -> None:
    made = head("mean-variance")
    logits = logits_for(made)
    total = 0.0
    for row, age in zip(logits, AGE, strict=True):
        probs = row.softmax(0).tolist()
        mean = sum(j * p for j, p in enumerate(probs))
        variance = sum(p * (j - mean) ** 2 for j, p in enumerate(probs))
        total += -math.log(probs[int(age)]) + 0.2 * (mean - float(age)) ** 2 / 2 + 0.05 * variance
    assert float(made.loss(logits, AGE)) == pytest.approx(total / len(AGE))


def test_mean_residue_is_the_papers() -> None:
    made = head("mean-residue")
    logits = logits_for(made)
    total, zeros = 0.0, 0
    for row, age in zip(logits, AGE, strict=True):
        probs = row.softmax(0).tolist()
        mean = sum(j * p for j, p in enumerate(probs))
        residue = [p if p < probs[int(age)] else 0.0 for p in probs]
        zeros += residue.count(0.0)
        entropy = -sum((r + 1e-3) * math.log(r + 1e-3) for r in residue)
        total += -math.log(probs[int(age)]) + 0.2 * (mean - float(age)) ** 2 / 2 + 0.05 * entropy
    assert float(made.loss(logits, AGE)) == pytest.approx(total / len(AGE))
    assert float(made.metrics(logits, AGE)["k"]) == pytest.approx(zeros / len(AGE))


def test_unimodal_punishes_what_rises_away_from_the_age() -> None:
    made = head("unimodal", weight=1.0)
    about_seven = -0.5 * (torch.arange(21, dtype=torch.float64) - 7)[None] ** 2 / 4
    two_peaks = torch.logaddexp(about_seven, about_seven.flip(1) - 1)
    age = torch.tensor([7.0])
    none, some = head("unimodal", weight=0.0), made
    assert float(some.loss(about_seven, age) - none.loss(about_seven, age)) == pytest.approx(0, abs=1e-9)
    assert float(some.loss(two_peaks, age) - none.loss(two_peaks, age)) > 0.001


def test_gaussian_is_torchs() -> None:
    made = head("gaussian", beta=0.0)
    made.init_from_ages(torch.tensor([0.0, 20.0]))
    logits = logits_for(made)
    target = (AGE.double() - made.centre) / made.scale
    torch.testing.assert_close(made.loss(logits, AGE), F.gaussian_nll_loss(logits[:, 0], target, logits[:, 1].exp()))


def test_quantiles_do_not_cross_and_find_the_quantiles() -> None:
    made = head("quantile", quantiles=[0.1, 0.5, 0.9])
    sample = torch.rand(4000, generator=GENERATOR, dtype=torch.float64) * 20
    made.init_from_ages(sample.float())
    made.double()
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        made.loss(logits.expand(len(sample), 3), sample).backward()
        optimiser.step()
    found = made.curve(logits)[0] * made.scale + made.centre
    assert found.tolist() == pytest.approx([2.0, 10.0, 18.0], abs=0.4)
    wild = made.curve(torch.randn(50, 3, dtype=torch.float64) * 100)
    assert (wild.diff(dim=1) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_coral_answers_agree_whatever_the_weights(seed: int, size: float) -> None:
    torch.manual_seed(seed)
    made = heads.create("coral", in_features=4, ages=AGES)
    torch.nn.init.normal_(made.bias, std=size)
    answers = made(torch.randn(6, 4) * size).sigmoid()
    assert (answers.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("name", ["coral", "corn", "or-cnn"])
def test_ranks_count_the_questions_answered_yes(name: str) -> None:
    made = head(name)
    sure = torch.full((3, made.out_features), -9.0, dtype=torch.float64)
    for row, age in enumerate((0, 7, 20)):
        sure[row, :age] = 9.0
    assert made.decode(sure).age.tolist() == [0.0, 7.0, 20.0]


@pytest.mark.parametrize("name", ["coral", "corn", "or-cnn"])
def test_fractional_labels_that_are_learned_have_no_bias(name: str) -> None:
    expectation, rank = head(name, decode="expectation"), head(name)
    assert isinstance(expectation, OrdinalHead)
    ages = torch.tensor([age + tenth / 10 for age in (1, 7, 12) for tenth in range(1, 10)], dtype=torch.float64)
    levels = expectation.levels(ages, torch.zeros(1, dtype=torch.float64))
    learned = levels.logit(eps=1e-12).requires_grad_()
    (slope,) = torch.autograd.grad(expectation.loss(learned, ages), learned)
    assert float(slope.abs().max()) < 1e-9  # nothing is left to learn
    torch.testing.assert_close(expectation.decode(learned).age, ages)
    rounded = rank.decode(learned).age
    assert float((rounded - ages).abs().max()) < 0.501
    assert abs(float((rounded - ages).mean())) < 0.06  # a half is rounded down


def test_whole_labels_have_the_targets_of_the_papers() -> None:
    made = head("coral")
    assert isinstance(made, OrdinalHead)
    ages = torch.tensor([-3.0, *AGE, 45.0], dtype=torch.float64)
    assert torch.equal(made.levels(ages, ages), (ages[:, None] > torch.arange(20)).double())


@pytest.mark.parametrize("name", ["classification", "dldl", "coral", "corn"])
def test_distributions_peak_where_the_logits_say(name: str) -> None:
    made = heads.create(name, in_features=4, ages=(10, 30))
    if name in ("coral", "corn"):
        logits = torch.cat([torch.full((1, 8), 6.0), torch.full((1, 12), -6.0)], dim=1)
    else:
        logits = F.one_hot(torch.tensor([8]), 21).float() * 12
    estimate = made.decode(logits)
    assert int(estimate.probs.argmax()) == 8
    assert float(estimate.age) == pytest.approx(18, abs=0.2)


def test_a_small_forest_by_hand() -> None:
    """One tree of one node and two leaves at 5 and 15 years with variances 4 and 9."""
    made = head("drf", trees=1, depth=2, units=1)
    made.mean.copy_(torch.tensor([[5.0, 15.0]]))
    made.variance.copy_(torch.tensor([[4.0, 9.0]]))
    logits = torch.tensor([[math.log(3.0)]], dtype=torch.float64)  # a sigmoid of 3/4

    def normal(age: float, mean: float, variance: float) -> float:
        return math.exp(-((age - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    expected = -math.log(0.75 * normal(7, 5, 4) + 0.25 * normal(7, 15, 9))
    assert float(made.loss(logits, torch.tensor([7.0]))) == pytest.approx(expected)
    estimate = made.decode(logits)
    assert float(estimate.age) == pytest.approx(0.75 * 5 + 0.25 * 15)
    spread = 0.75 * (4 + (5 - 7.5) ** 2) + 0.25 * (9 + (15 - 7.5) ** 2)
    assert float(estimate.std) == pytest.approx(math.sqrt(spread))


def test_one_step_of_the_leaves_by_hand() -> None:
    made = head("drf", trees=1, depth=2, units=1, iterations=1)
    made.mean.copy_(torch.tensor([[5.0, 15.0]]))
    made.variance.copy_(torch.tensor([[25.0, 25.0]]))
    logits, ages = (
        torch.tensor([[0.0], [0.0], [2.0]], dtype=torch.float64),
        torch.tensor([4.0, 16.0, 10.0], dtype=torch.float64),
    )
    shares = []
    for (logit,), age in zip(logits.tolist(), ages.tolist(), strict=True):
        left = 1 / (1 + math.exp(-logit))
        weights = [part * math.exp(-((age - mean) ** 2) / 50) for part, mean in ((left, 5.0), (1 - left, 15.0))]
        shares.append([weight / sum(weights) for weight in weights])
    made.update_leaves(logits, ages)
    for leaf in (0, 1):
        weight = sum(share[leaf] for share in shares)
        mean = sum(share[leaf] * age for share, age in zip(shares, ages.tolist(), strict=True)) / weight
        variance = (
            sum(share[leaf] * (age - mean) ** 2 for share, age in zip(shares, ages.tolist(), strict=True)) / weight
        )
        assert float(made.mean[0, leaf]) == pytest.approx(mean, rel=1e-5)
        assert float(made.variance[0, leaf]) == pytest.approx(variance, rel=1e-5)


def test_the_leaves_follow_training() -> None:
    made = heads.create(
        "drf", in_features=4, ages=AGES, trees=2, depth=3, units=8, update_every=3, remembered=32
    ).train()
    before = made.mean.clone()
    for _ in range(3):
        made.loss(made(torch.randn(8, 4)), torch.full((8,), 17.0))
    assert (made.mean - 17).abs().mean() < (before - 17).abs().mean() / 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regression", {"loss": "l3"}),
        ("gaussian", {"beta": 2}),
        ("quantile", {"quantiles": [0.9, 0.1]}),
        ("classification", {"decode": "mean"}),
        ("dldl", {"sigma": 0}),
        ("sord", {"distance": "cubed"}),
        ("coral", {"decode": "sum"}),
        ("drf", {"depth": 1}),
        ("drf", {"depth": 40}),
        ("drf", {"remembered": -1}),
        ("coral", {"lambda": 1}),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, object]) -> None:
    from agebench.errors import UserError

    with pytest.raises(UserError, match=f"head '{name}'"):
        heads.create(name, in_features=4, **options)


def test_the_nodes_of_a_drf_tree_have_different_units() -> None:
    head = DRFHead(8, trees=4, depth=6, units=40)
    assert head.chosen.shape == (4, 31)
    assert all(len(set(tree.tolist())) == 31 for tree in head.chosen)
    assert len({tuple(sorted(tree.tolist())) for tree in head.chosen}) == 4
    assert DRFHead(8, depth=6, units=31).chosen.shape == (5, 31)
    with pytest.raises(TypeError, match="units = 30: a tree of depth 6 needs one unit for each of its 31 inner nodes"):
        DRFHead(8, depth=6, units=30)
