"""Datasets in Python: samples as a frame, images as arrays, faces as tensors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.data.dataset import Dataset, load_dataset
from agebench.data.readers.huggingface import HuggingFaceReader
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog

CARD = load_catalog().datasets.get("synth").model_copy(update={"options": {"count": 12, "seed": 3}})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(CARD)


def test_frame_and_images(dataset: Dataset) -> None:
    assert len(dataset) == len(dataset.frame) == 12
    assert dataset.rejected.empty
    image = dataset.image(2)
    assert (image.dtype, image.ndim, image.shape[2]) == (np.dtype(np.uint8), 3, 3)
    with pytest.raises(IndexError):
        dataset.image(12)


def test_notebook_table(dataset: Dataset) -> None:
    table = dataset._repr_html_()
    assert "<th>images</th><td>12</td>" in table
    assert repr(dataset) == "<Dataset 'synth': 12 images, 0 rejected>"


def test_torch_items(dataset: Dataset) -> None:
    faces = dataset.to_torch(size=64, workers=1)
    image, age = faces[3]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 64, 64))
    assert age == dataset.frame["age"].iloc[3]
    images, ages = next(iter(torch.utils.data.DataLoader(faces, batch_size=5)))
    assert (tuple(images.shape), len(ages), len(faces)) == ((5, 3, 64, 64), 5, 12)


def test_hf_dataset_has_the_images_labels_and_groups_and_is_read_back(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = dataset.to_hf()
    assert len(there) == 12
    assert there["age"] == pytest.approx(dataset.frame["age"])
    assert list(there["sample_id"]) == list(dataset.frame["sample_id"])
    assert {"gender", "subject"} <= set(there.column_names)
    assert np.array_equal(np.array(there[5]["image"]), dataset.image(5))
    turned = replace(dataset, samples=replace(dataset.samples, table=dataset.frame[::-1].reset_index(drop=True)))
    assert list(turned.to_hf()["sample_id"]) == list(dataset.frame["sample_id"])[::-1]
    # What was written before is opened, not written again.
    monkeypatch.setattr(type(dataset.reader), "image_bytes", lambda *_: pytest.fail("an image was read again"))
    assert dataset.to_hf()["age"] == there["age"]
    monkeypatch.undo()
    # And back: the reader of what `datasets` wrote.
    there.to_parquet(tmp_path / "data.parquet")
    back = HuggingFaceReader(tmp_path / "data.parquet").read()
    assert back.table["age"].tolist() == pytest.approx(dataset.frame["age"].tolist())


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="did you mean 'synth'"):
        load_dataset("sinth")
