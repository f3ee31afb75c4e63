"""A ~ U(-1/sqrt(k), 1/sqrt(k)), what loralib and peft draw; B = 0."""

import functools
import math

from torch import nn

from lora.variants._draws import Drawn

VARIANT = Drawn(__name__, A=functools.partial(nn.init.kaiming_uniform_, a=math.sqrt(5)))
