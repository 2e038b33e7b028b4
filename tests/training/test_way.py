"""The product without its folder of speed: slower, and whole."""

import json
import os
import subprocess
import sys

WITHOUT_FAST = """
import sys

class NoFast:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("groupnorm_bench.fast"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoFast())
from groupnorm_bench.cli import main
main()
"""


def gnbench_without_fast(*args: str) -> str:
    command = [sys.executable, "-c", WITHOUT_FAST, *args]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_fast_a_training_runs_in_both_precisions_and_learns(tmp_path):
    train = ["train", "--dataset", "mnist-5k", "--norm", "batch", "--device", "cpu", "--json"]
    train += ["--max-steps", "30", "--wandb", "disabled", "--out", str(tmp_path)]
    for precision in ("fp32", "bf16"):
        document = json.loads(gnbench_without_fast(*train, "--precision", precision))
        assert document["status"] == "finished"
        assert document["summary"]["test/accuracy"] > 0.7


def test_without_fast_training_is_benched(tmp_path):
    bench = ["bench", "train", "--norm", "group", "--batch-size", "2", "--repeats", "1", "--json"]
    assert len(json.loads(gnbench_without_fast(*bench, "--precision", "fp32"))) == 1
