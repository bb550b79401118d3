"""`import agebench` is light, and every public name is there."""

import statistics
import subprocess
import sys

import agebench

HEAVY = ("torch", "pandas", "numpy", "scipy", "PIL", "pydantic", "matplotlib", "timm")


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, agebench\nassert not set({HEAVY}) & set(sys.modules), set({HEAVY}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_takes_less_than_30_ms() -> None:
    code = "import time; start = time.process_time(); import agebench; print(time.process_time() - start)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert statistics.median(seconds) < 0.030


def test_loading_the_released_model_loads_nothing_for_training() -> None:
    """TensorBoard brings TensorFlow where it is installed; timm and torchvision take seconds."""
    unused = ("tensorboard", "torchvision", "timm", "datasets")
    code = f"import sys, agebench\nagebench.load_estimator(device='cpu').close()\nassert not set({unused}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_documented() -> None:
    for name in agebench.__all__:
        if name != "__version__":
            assert getattr(agebench, name).__doc__, name
        assert name in dir(agebench)


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(agebench, "nothing")


def test_leaderboard_is_function_and_package() -> None:
    code = (
        "import agebench as ab\n"
        "assert callable(ab.leaderboard)\n"
        "import agebench.leaderboard.markdown as markdown\n"
        "assert agebench_leaderboard().__name__.endswith('leaderboard')\n"
        "assert callable(ab.leaderboard) and ab.leaderboard.markdown is markdown\n"
    ).replace("agebench_leaderboard()", "__import__('sys').modules['agebench.leaderboard']")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
