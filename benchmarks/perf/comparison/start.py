"""Work of starting: help, lists and the first photograph, each in a new process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from comparison.faces import faces_of_people, write_faces
from comparison.timing import Done, Peer, Work

LM_EVAL = {"lm-eval": "lm_eval"}
DEEPFACE = {"deepface": "deepface"}
INSIGHTFACE = {"insightface": "insightface"}


def command(*words: str) -> Callable[[], Done]:
    """A command of a package that is installed beside this Python: a script's name, or `-c` or `-m` for Python itself."""
    program = [sys.executable] if words[0].startswith("-") else [str(Path(sys.executable).parent / words[0])]
    rest: Sequence[str] = words if words[0].startswith("-") else words[1:]

    def run() -> Done:
        done = subprocess.run(
            [*program, *rest], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=quiet, check=False
        )
        if done.returncode:
            raise RuntimeError(f"it ends with {done.returncode}: {(done.stderr.splitlines() or ['no word'])[-1]}")
        return Done()

    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return run


def show_help(quick: bool) -> Work:
    """`--help`."""
    peers = (
        Peer("agebench --help", command("-m", "agebench", "--help")),
        Peer("lm-eval --help", command("lm-eval", "--help"), LM_EVAL),
        Peer("deepface --help", command("deepface", "--help"), DEEPFACE),
        Peer("insightface-cli --help", command("insightface-cli", "--help"), INSIGHTFACE),
    )
    return Work("the help of the command", peers)


def show_list(quick: bool) -> Work:
    """The names of what there is."""
    peers = (
        Peer("agebench list", command("-m", "agebench", "list")),
        Peer("lm-eval ls tasks", command("lm-eval", "ls", "tasks"), LM_EVAL),
    )
    return Work("list what there is: datasets, models and heads; tasks", peers)


def first_photograph(quick: bool) -> Work:
    """From nothing to the age in a photograph."""
    folder = tempfile.TemporaryDirectory(prefix="agebench-compare-")
    (photograph,) = write_faces(faces_of_people(1)[0], Path(folder.name))
    peers = (
        Peer("agebench predict photograph.jpg", command("-m", "agebench", "predict", str(photograph))),
        Peer("deepface, its import alone", command("-c", "from deepface import DeepFace"), DEEPFACE),
        Peer("insightface, its import alone", command("-c", "from insightface.app import FaceAnalysis"), INSIGHTFACE),
    )
    note = (
        "agebench detects the face and estimates its age with the model that ships with it; deepface and insightface download "
        "their weights, so that only their import is measured, to which loading and prediction add."
    )
    return Work("the first photograph, in a new process", peers, note, folder)
