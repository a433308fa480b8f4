from .configuration import EXPERIMENTS as EXPERIMENTS
from .configuration import OPTIONS as OPTIONS
from .configuration import Configuration as Configuration
from .configuration import Experiment as Experiment
from .configuration import Option as Option
from .configuration import command_line as command_line
from .configuration import configure as configure
from .configuration import replace as replace
