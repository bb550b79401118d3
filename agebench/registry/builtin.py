"""Registries of readers, heads and detectors, with the built-in ones; modules are imported on first use."""

from typing import Any

from agebench.registry.registry import Registry


def _check_class(name: str, item: Any) -> str:
    return "" if isinstance(item, type) else f"it hands over {type(item).__name__}, where a class is required"


readers: Registry[Any] = Registry("reader", group="agebench.readers", check=_check_class)
for _name, _target in {
    "utkface": "agebench.data.readers.utkface:UTKFaceReader",
    "fgnet": "agebench.data.readers.fgnet:FGNetReader",
    "csv": "agebench.data.readers.table:TableReader",
    "folder": "agebench.data.readers.folder:FolderReader",
    "huggingface": "agebench.data.readers.huggingface:HuggingFaceReader",
    "imdb-wiki": "agebench.data.readers.imdb_wiki:IMDBWikiReader",
    "facebase": "agebench.data.readers.paplham:FacebaseReader",
    "synth": "agebench.data.readers.synth:SynthReader",
}.items():
    readers.register(_name, _target)

heads: Registry[Any] = Registry("head", group="agebench.heads", check=_check_class)
for _name, _target in {
    "regression": "agebench.models.heads.regression:RegressionHead",
    "normalised": "agebench.models.heads.minmax_regression:MinMaxRegressionHead",
    "gaussian": "agebench.models.heads.gaussian:GaussianHead",
    "quantile": "agebench.models.heads.quantile:QuantileHead",
    "classification": "agebench.models.heads.classification:ClassificationHead",
    "dldl": "agebench.models.heads.dldl:DLDLHead",
    "dldl-v2": "agebench.models.heads.dldl:DLDLv2Head",
    "sord": "agebench.models.heads.sord:SORDHead",
    "mean-variance": "agebench.models.heads.mean_variance:MeanVarianceHead",
    "mean-residue": "agebench.models.heads.mean_residue:MeanResidueHead",
    "unimodal": "agebench.models.heads.unimodal:UnimodalHead",
    "or-cnn": "agebench.models.heads.ordinal:ORCNNHead",
    "coral": "agebench.models.heads.ordinal:CORALHead",
    "corn": "agebench.models.heads.ordinal:CORNHead",
    "drf": "agebench.models.heads.drf:DRFHead",
}.items():
    heads.register(_name, _target)

detectors: Registry[Any] = Registry("detector", group="agebench.detectors", check=_check_class)
for _name, _target in {
    "yunet": "agebench.data.faces.detectors.yunet:YuNetDetector",
    "blazeface": "agebench.data.faces.detectors.blazeface:BlazeFaceDetector",
    "mtcnn": "agebench.data.faces.detectors.mtcnn:MTCNNDetector",
    "libfacedetection": "agebench.data.faces.detectors.libfacedetection:LibFaceDetector",
    "dlib": "agebench.data.faces.detectors.dlib:DlibDetector",
}.items():
    detectors.register(_name, _target)
