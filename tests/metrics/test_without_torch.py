import pkgutil
import subprocess
import sys

import agebench.metrics


def test_evaluation_and_its_commands_know_nothing_of_torch():
    modules = [f"agebench.metrics.{found.name}" for found in pkgutil.iter_modules(agebench.metrics.__path__)]
    modules += ["agebench.cli.score", "agebench.cli.compare", "agebench.reports.evaluation"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
