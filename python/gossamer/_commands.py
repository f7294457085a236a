"""The commands that the package installs."""

import os
import sys

from . import _gossamer


def train() -> None:
    sys.exit(_gossamer.run_train(sys.argv))


def gossamer() -> None:
    sys.exit(_gossamer.run_gossamer(sys.argv, os.path.dirname(os.path.abspath(sys.argv[0]))))
