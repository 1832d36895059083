"""What the package's own tests are: each plug-in passes the suite that llmopt ships."""

import pytest
from llmopt_plugin_example.adjectives import Adjectives
from llmopt_plugin_example.centred import Centred
from llmopt_plugin_example.eye import open_eye
from llmopt_plugin_example.parrot import Parrot

from llmopt.testing import (
    BlackBoxContract,
    ChatModelContract,
    HeadContract,
    OptimizerContract,
)


class TestAdjectives(OptimizerContract):
    @pytest.fixture
    def optimizer(self):
        return Adjectives(words=4)


class TestCentred(HeadContract):
    @pytest.fixture
    def head(self):
        return Centred()


class TestEye(BlackBoxContract):
    @pytest.fixture
    def box(self):
        return open_eye("9")


class TestParrot(ChatModelContract):
    @pytest.fixture
    def model(self):
        return Parrot(word="vivid")
