"""Training options of a recipe: moving average, accumulation, layer decay, mixing, smoothing, flip at test time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agebench.config.cards.model import Architecture, Augment, Recipe
from agebench.errors import UserError
from agebench.models import heads
from agebench.models.age_model import AgeModel, create_model
from agebench.models.heads import AgeEstimate, average_estimates
from agebench.models.heads.dldl import DLDLHead
from agebench.training.callbacks import NullCallback, TrainState
from agebench.training.dataloader import FaceDataset, balanced_order
from agebench.training.mixing import Mix, draw_mix
from agebench.training.optim import (
    WeightAverage,
    backbone_layers,
    create_optimizer,
    freeze_first_layers,
    set_learning_rate,
)
from agebench.training.prediction import predict
from agebench.training.trainer import Batch, StepOutput, Trainer

CPU = torch.device("cpu")
CARD = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=32)
STILL = Augment(flip=0, rotate=0, brightness=0, saturation=0, hue=0)


def brightness_faces(count: int, seed: int) -> FaceDataset:
    """Return faces whose brightness is their age."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(5, 80, count).astype(np.float32)
    pixels = rng.integers(0, 60, (count, 32, 32, 3)) + ages[:, None, None, None] * 2
    return FaceDataset(pixels.astype(np.uint8), np.arange(count), ages)


TRAIN, VAL = brightness_faces(48, 0), brightness_faces(16, 1)


class PlainBackbone(nn.Module):
    """A backbone without batch normalization, whose features are linear in the means of image quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))  # type: ignore[no-any-return]


def make_trainer(folder: Path, recipe: Recipe, *, head: str = "regression", plain: bool = False) -> Trainer:
    torch.manual_seed(5)
    card = CARD.model_copy(update={"head": head})
    model = AgeModel(PlainBackbone(), heads.create(head, in_features=8)) if plain else create_model(card)
    model.head.init_from_ages(torch.from_numpy(TRAIN.ages))
    return Trainer(model, card, recipe, seed=7, device=CPU, folder=folder)


def make_layered_trainer(folder: Path, recipe: Recipe) -> Trainer:
    """Return the trainer of a network of timm with batch normalization."""
    card = CARD.model_copy(update={"backbone": "resnet10t", "head": "regression"})
    return Trainer(create_model(card), card, recipe, seed=7, device=CPU, folder=folder)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_default_recipes_do_not_mention_the_options() -> None:
    keys = {"ema_decay", "accumulate_steps", "layer_decay", "mixup", "cutmix", "label_smoothing", "flip_tta"}
    dumped = Recipe().model_dump()
    assert not keys & dumped.keys()
    assert not {"erase", "rand_augment"} & dumped["augment"].keys()
    options = {key: 2 if key == "accumulate_steps" else key == "flip_tta" or 0.5 for key in keys}
    recipe = Recipe.model_validate(options | {"augment": {"erase": 0.25, "rand_augment": 5}})
    dumped = recipe.model_dump(mode="json")
    assert keys <= dumped.keys()
    assert Recipe.model_validate(dumped) == recipe


def test_the_average_equals_one_computed_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average = WeightAverage(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(12):
        with torch.no_grad():
            model[0].weight += 1
            model[1].running_mean += 2
            model[1].num_batches_tracked += 1
        decay = min(0.5, (1 + step) / (10 + step))
        for name in ("0.weight", "1.running_mean"):
            expected[name] = decay * expected[name] + (1 - decay) * model.state_dict()[name]
        average.update(step)
    for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(average.state[name], expected[name])
    assert int(average.state["1.num_batches_tracked"]) == 12
    trained = model[0].weight.clone()
    with average.applied():
        torch.testing.assert_close(model[0].weight.data, expected["0.weight"])
    assert (model[0].weight == trained).all()


def test_validation_and_best_weights_are_averaged(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Recipe(epochs=1, batch_size=8, ema_decay=0.9))
    trainer.fit(TRAIN, VAL, NullCallback())
    trained = weights(trainer)
    assert trainer.average is not None
    average = {name: value.clone() for name, value in trainer.average.state.items()}
    trainer.load_best()
    best = weights(trainer)
    assert all((best[name] == average[name]).all() for name in best)
    assert (best["head.linear.weight"] != trained["head.linear.weight"]).any()
    ages = predict(trainer.model, VAL, CARD, CPU).age
    assert np.abs(ages - VAL.ages).mean() == pytest.approx(trainer.history.epochs[0]["val_mae"])


LEVERS = Recipe(
    epochs=3,
    batch_size=8,
    ema_decay=0.8,
    accumulate_steps=2,
    layer_decay=0.7,
    mixup=0.4,
    cutmix=1.0,
    flip_tta=True,
    augment=Augment(erase=0.5, rand_augment=5),
)


class Interrupt(NullCallback):
    """Interrupt training at the end of an epoch or after a step."""

    def __init__(self, *, epoch: int = 0, step: int = 0) -> None:
        self.epoch, self.step = epoch, step

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        if entry["epoch"] == self.epoch:
            raise KeyboardInterrupt

    def on_step(self, state: TrainState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("interrupt", [Interrupt(epoch=1), Interrupt(step=6)])
def test_a_resumed_run_with_all_options_is_exact(tmp_path: Path, interrupt: Interrupt) -> None:
    recipe = LEVERS.model_copy(update={"label_smoothing": 2.0})
    whole = make_trainer(tmp_path / "whole", recipe, head="mean-variance")
    whole.fit(TRAIN, VAL, NullCallback())
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "cut", recipe, head="mean-variance").fit(TRAIN, VAL, interrupt)
    resumed = make_trainer(tmp_path / "cut", recipe, head="mean-variance")
    assert resumed.resume()
    resumed.fit(TRAIN, VAL, NullCallback())
    assert [entry["val_mae"] for entry in resumed.history.epochs] == [
        entry["val_mae"] for entry in whole.history.epochs
    ]
    for pair in ((weights(whole), weights(resumed)), (whole.average.state, resumed.average.state)):  # type: ignore[union-attr]
        assert all((pair[0][name] == pair[1][name]).all() for name in pair[0])


def test_a_checkpoint_without_the_average_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=8)
    make_trainer(tmp_path, recipe).fit(TRAIN, VAL, NullCallback())
    with pytest.raises(UserError, match="averaged weights"):
        make_trainer(tmp_path, recipe.model_copy(update={"ema_decay": 0.9})).resume()


def test_two_accumulated_batches_equal_one_of_twice_the_size(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=16, optimiser="sgd", lr=0.01, augment=STILL)
    large = make_trainer(tmp_path / "a", recipe, plain=True)
    halves = recipe.model_copy(update={"batch_size": 8, "accumulate_steps": 2})
    small = make_trainer(tmp_path / "b", halves, plain=True)
    for trainer in (large, small):
        trainer.fit(TRAIN, VAL, NullCallback())
    assert small.steps_done(TRAIN) == large.steps_done(TRAIN) == 6
    for name, value in weights(large).items():
        torch.testing.assert_close(weights(small)[name], value, atol=1e-6, rtol=1e-5)


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(epochs=1, batch_size=8, accumulate_steps=4, clip=0)
    trainer = make_trainer(tmp_path, recipe, plain=True)
    parameters = list(trainer.model.parameters())
    training_step, optimizer_step = trainer.training_step, trainer._optimizer_step
    gradients: list[tuple[torch.Tensor, ...]] = []
    batches: list[int] = []

    def observed_batch(batch: Batch) -> StepOutput:
        output = training_step(batch)
        gradients.append(torch.autograd.grad(output.loss, parameters, retain_graph=True))
        return output

    def observed_step(step: int, total_steps: int) -> float:
        for parameter, values in zip(parameters, zip(*gradients, strict=True), strict=True):
            torch.testing.assert_close(parameter.grad, torch.stack(values).mean(dim=0))
        batches.append(len(gradients))
        gradients.clear()
        return optimizer_step(step, total_steps)

    monkeypatch.setattr(trainer, "training_step", observed_batch)
    monkeypatch.setattr(trainer, "_optimizer_step", observed_step)
    entry = trainer.train_epoch(TRAIN, 1, NullCallback())
    assert batches == [4, 2]
    assert entry["images_per_s"] * entry["seconds"] == pytest.approx(len(TRAIN))
    trainer.history.epochs.append(entry)
    assert trainer.steps_done(TRAIN) == 2


def test_fewer_batches_than_accumulated_steps_make_one_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Recipe(epochs=1, batch_size=16, accumulate_steps=8))
    trainer.fit(TRAIN, VAL, NullCallback())
    assert trainer.steps_done(TRAIN) == 1


@pytest.mark.parametrize("backbone", ["agebench.tiny", "resnet10t"])
def test_learning_rates_decay_by_layer(backbone: str) -> None:
    model = create_model(CARD.model_copy(update={"backbone": backbone}))
    optimizer = create_optimizer(model, Recipe(layer_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    lr_by_id = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    layers = backbone_layers(model.backbone)
    depth = max(layers.values()) + 1
    assert len(lr_by_id) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert lr_by_id[id(parameter)] == pytest.approx(0.1 * 0.5 ** (depth - layers.get(name, depth)))
    assert layers[next(iter(dict(model.named_parameters())))] == 0
    decays = {value.ndim: group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert decays[1] == 0 < decays[4]


def test_layer_decay_needs_layers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.layer_decay: the backbone PlainBackbone"):
        make_trainer(tmp_path, Recipe(layer_decay=0.5), plain=True)


@pytest.mark.parametrize("option", ["mixup", "cutmix", "layer_decay"])
def test_a_frozen_backbone_rejects_options_without_effect(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        Recipe.model_validate({"freeze": "backbone", option: 0.5})


def test_mixup_is_a_convex_combination() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed = Mix(torch.tensor([1, 0, 3, 2]), 0.75, None).apply(images)
    torch.testing.assert_close(mixed, 0.75 * images + 0.25 * images[[1, 0, 3, 2]])


def test_cutmix_pastes_a_box_of_the_drawn_area() -> None:
    boxes = set()
    for seed in range(20):
        mix = draw_mix(4, 16, mixup=0, cutmix=1.0, seed=seed)
        assert mix is not None
        assert mix.box is not None
        top, bottom, left, right = mix.box
        boxes.add(mix.box)
        assert mix.weight == pytest.approx(1 - (bottom - top) * (right - left) / 256)
        images = torch.rand(4, 3, 16, 16)
        mixed, partners = mix.apply(images), images[mix.partner]
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        torch.testing.assert_close(mixed, torch.where(inside, partners, images))
    assert len(boxes) > 10


def test_mixes_are_a_function_of_the_seed() -> None:
    first, again, other = (draw_mix(6, 16, mixup=0.4, cutmix=1.0, seed=seed) for seed in (3, 3, 4))
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first.weight, first.box, first.partner.tolist()) == (again.weight, again.box, again.partner.tolist())
    assert first.weight != other.weight
    kinds = {draw_mix(2, 16, mixup=1, cutmix=1, seed=seed).box is None for seed in range(20)}  # type: ignore[union-attr]
    assert kinds == {True, False}
    assert draw_mix(6, 16, mixup=0, cutmix=0, seed=0) is None


@pytest.mark.parametrize("head", ["regression", "coral", "dldl-v2"])
def test_the_loss_of_mixed_images_combines_both_labels(tmp_path: Path, head: str) -> None:
    trainer = make_trainer(tmp_path, Recipe(batch_size=8, mixup=0.5, augment=STILL), head=head)
    trainer.model.eval()
    faces, ages = torch.from_numpy(TRAIN.pixels[:8]), torch.from_numpy(TRAIN.ages[:8])
    mix = draw_mix(8, 32, mixup=0.5, cutmix=0, seed=11)
    assert mix is not None
    output = trainer.training_step(Batch(faces, ages, {}, 11))
    images = trainer.augment(faces, torch.Generator().manual_seed(11))
    logits = trainer.model(mix.apply(images))
    loss = trainer.model.head.loss
    expected = mix.weight * loss(logits, ages) + (1 - mix.weight) * loss(logits, ages[mix.partner])
    torch.testing.assert_close(output.loss, expected)


def test_forests_reject_mixed_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.cutmix: DRFHead needs one age per face"):
        make_trainer(tmp_path, Recipe(cutmix=1.0), head="drf")


@pytest.mark.parametrize("name", heads.names())
def test_label_smoothing_is_a_normal_distribution_or_refused(name: str) -> None:
    head = heads.create(name, in_features=4)
    if name not in ("classification", "mean-variance", "mean-residue"):
        with pytest.raises(UserError, match=r"train\.label_smoothing = 2: .*no cross-entropy over ages"):
            head.smooth_labels(2.0)
        return
    head.smooth_labels(2.0)
    log_probs, age = torch.randn(3, 101).log_softmax(1), torch.tensor([0.0, 30.5, 77.0])
    target = torch.exp(-0.5 * ((torch.arange(101) - age[:, None]) / 2) ** 2)
    target /= target.sum(1, keepdim=True)
    torch.testing.assert_close(head.cross_entropy(log_probs, age), -(target * log_probs).sum(1))  # type: ignore[operator]


def test_smoothing_changes_the_loss_of_training(tmp_path: Path) -> None:
    losses = []
    for std in (0.0, 3.0):
        recipe = Recipe(epochs=1, batch_size=8, label_smoothing=std)
        trainer = make_trainer(tmp_path / str(std), recipe, head="classification")
        losses.append(trainer.train_epoch(TRAIN, 1, NullCallback())["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("head", ["regression", "classification", "gaussian", "quantile"])
def test_flip_averages_the_image_and_its_mirror_image(tmp_path: Path, head: str) -> None:
    trainer = make_trainer(tmp_path, Recipe(epochs=1, batch_size=8), head=head)
    trainer.fit(TRAIN, VAL, NullCallback())
    mirrored = FaceDataset(np.ascontiguousarray(VAL.pixels[:, :, ::-1]), VAL.rows, VAL.ages)
    plain, flipped = (predict(trainer.model, data, CARD, CPU) for data in (VAL, mirrored))
    trainer.model.flip_tta = True
    both = predict(trainer.model, VAL, CARD, CPU)
    assert (plain.age != flipped.age).any()
    np.testing.assert_allclose(both.age, (plain.age + flipped.age) / 2, atol=1e-4)
    if both.probs is not None and plain.probs is not None and flipped.probs is not None:
        np.testing.assert_allclose(both.probs, (plain.probs + flipped.probs) / 2, atol=1e-6)


def test_frozen_features_have_a_mirrored_view(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Recipe(freeze="backbone", flip_tta=True))
    features = np.random.default_rng(0).normal(size=(16, 2, 160)).astype(np.float32)
    data = FaceDataset(features, VAL.rows, VAL.ages)
    both = predict(trainer.model, data, CARD, CPU).age
    trainer.model.flip_tta = False
    views = [FaceDataset(features[:, [view]], VAL.rows, VAL.ages) for view in (0, 1)]
    np.testing.assert_allclose(both, sum(predict(trainer.model, view, CARD, CPU).age for view in views) / 2, atol=1e-4)


def test_averaged_std_is_that_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(20, 3, 100_000), rng.normal(30, 4, 100_000)
    views = [AgeEstimate(torch.tensor([mean]), None, torch.tensor([std])) for mean, std in ((20.0, 3.0), (30.0, 4.0))]
    averaged = average_estimates(*views)
    assert averaged.std is not None
    assert float(averaged.age) == 25
    assert float(averaged.std) == pytest.approx(np.concatenate(samples).std(), rel=0.01)


def test_balanced_order_draws_each_face_as_often_as_expected() -> None:
    ages = np.repeat([10.0, 60.0], [900, 100]).astype(np.float32)
    order = balanced_order(ages, 1.0, seed=3, epoch=1)
    assert len(order) == 1000
    assert abs(int((ages[order] == 60).sum()) - 500) <= 1
    counts = np.bincount(order, minlength=1000)
    assert set(counts[:900]) <= {0, 1}
    assert set(counts[900:]) <= {4, 5, 6}
    assert (balanced_order(ages, 1.0, seed=3, epoch=1) == order).all()
    assert (balanced_order(ages, 1.0, seed=3, epoch=2) != order).any()
    assert (np.sort(balanced_order(ages, 0.0, seed=3, epoch=1)) == np.arange(1000)).all()


def test_head_epochs_leave_the_backbone_alone_and_resume(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, head_epochs=1, batch_size=16, augment=STILL)
    trainer = make_trainer(tmp_path, recipe)
    before = weights(trainer)
    trainer.train_epoch(TRAIN, 1, NullCallback())
    changed = {name.split(".")[0] for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed == {"head"}
    trainer.train_epoch(TRAIN, 2, NullCallback())
    assert not torch.equal(weights(trainer)["backbone.layers.0.weight"], before["backbone.layers.0.weight"])


def test_head_epochs_must_leave_epochs_for_the_backbone() -> None:
    with pytest.raises(ValueError, match="head_epochs = 2 leaves none of the 2 epochs"):
        Recipe(epochs=2, head_epochs=2)


def test_frozen_layers_keep_their_weights_and_statistics(tmp_path: Path) -> None:
    trainer = make_layered_trainer(tmp_path, Recipe(epochs=1, batch_size=16, frozen_layers=3, augment=STILL))
    layers = backbone_layers(trainer.model.backbone)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train_epoch(TRAIN, 1, NullCallback())
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, layer in layers.items() if layer >= 3} <= changed
    frozen = {name.rpartition(".")[0] for name, layer in layers.items() if layer < 3}
    assert any(f"{module}.running_mean" in before for module in frozen)  # there is batch normalization among them
    assert not {name for name in changed if name.rpartition(".")[0] in frozen}


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("agebench.tiny", 32),
        ("agebench.dlib-resnet", 150),
        ("agebench.mobilefacenet", 112),
        ("vit_tiny_patch16_224", 224),
    ],
)
def test_exactly_the_first_layers_are_frozen(backbone: str, size: int) -> None:
    """A ViT's first layer owns parameters of the whole network; dlib's last layer is for recognition and never trained."""
    network = create_model(CARD.model_copy(update={"backbone": backbone, "size": size})).backbone
    free = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    layers = backbone_layers(network)
    last = max(layers[f"backbone.{name}"] for name in free)
    for count in (1, last):
        frozen = freeze_first_layers(network, count)
        left = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert left == {name for name in free if layers[f"backbone.{name}"] >= count}
        assert left
        assert not left & {
            name for module in frozen for name, of in network.named_parameters() if of in set(module.parameters())
        }
    with pytest.raises(UserError, match=f"Freeze {last} or fewer"):
        freeze_first_layers(network, last + 1)


def test_frozen_layers_must_leave_some_of_the_backbone(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"train.frozen_layers = 99: the backbone .* has \d+ layers. Freeze \d+ or fewer"
    ):
        make_layered_trainer(tmp_path, Recipe(epochs=1, batch_size=16, frozen_layers=99, augment=STILL))
    with pytest.raises(ValueError, match="frozen_layers changes nothing that freeze"):
        Recipe(freeze="backbone", frozen_layers=2)


def test_a_run_with_all_new_options_trains(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=3,
        head_epochs=1,
        batch_size=16,
        age_balance=0.5,
        augment=STILL.model_copy(update={"blur": 1.0, "jpeg": 0.5}),
    )
    history = make_trainer(tmp_path, recipe).fit(TRAIN, VAL, NullCallback())
    assert len(history.epochs) == 3
    assert all(np.isfinite(entry["loss"]) for entry in history.epochs)


def test_the_label_width_grows_with_age() -> None:
    head = heads.create("dldl", in_features=4, sigma=1.0, sigma_slope=0.1)
    assert isinstance(head, DLDLHead)
    for age in (5.0, 60.0):
        squared = (torch.arange(101.0) - age) ** 2
        target = (squared / (-2 * (1 + 0.1 * age) ** 2)).softmax(0)
        # The loss is smallest, and 0, at the target itself.
        loss = head.sample_losses(target.clamp(min=1e-30).log()[None], torch.tensor([age]))
        assert float(loss) == pytest.approx(0, abs=1e-4)
    with pytest.raises(UserError, match="sigma_slope = -1: must be 0 or more"):
        heads.create("dldl", in_features=4, sigma_slope=-1)
