"""Former home of the settings of runs; imports from here keep working."""

from agebench.config.evaluate import ExternalConfig as ExternalConfig
from agebench.config.evaluate import PublishedConfig as PublishedConfig
from agebench.config.run import DEFAULT_MODEL as DEFAULT_MODEL
from agebench.config.run import DataConfig as DataConfig
from agebench.config.run import EvaluateConfig as EvaluateConfig
from agebench.config.run import FacesConfig as FacesConfig
from agebench.config.run import RunConfig as RunConfig
from agebench.config.toml_io import parse_setting as parse_setting
from agebench.config.toml_io import read_settings as read_settings
from agebench.runs.resolve import resolve_config as resolve_config
