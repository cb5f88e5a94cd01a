"""Whether there is a C++ compiler; where there is one, what cannot be compiled fails a test."""

import os
import shutil

import pytest

from tasks.prune.activation.shared_library import COMPILERS

needs_compiler = pytest.mark.skipif(
    "CXX" not in os.environ and not any(shutil.which(each) for each in COMPILERS), reason="no C++ compiler is here"
)
