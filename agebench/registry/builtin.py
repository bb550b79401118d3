"""The registries of code plugins, filled with what agebench brings; nothing is imported before it is used."""

from typing import Any

from agebench.registry.plugins import Registry

readers: Registry[Any] = Registry("reader", group="agebench.readers")
for _name, _target in {
    "utkface": "agebench.data.readers.utkface:UTKFaceReader",
    "fgnet": "agebench.data.readers.fgnet:FGNetReader",
    "csv": "agebench.data.readers.csv:CSVReader",
    "folder": "agebench.data.readers.folder:FolderReader",
    "synth": "agebench.data.readers.synth:SynthReader",
}.items():
    readers.register(_name, _target)

heads: Registry[Any] = Registry("head", group="agebench.heads")
for _name, _target in {
    "regression": "agebench.models.heads.regression:RegressionHead",
}.items():
    heads.register(_name, _target)
