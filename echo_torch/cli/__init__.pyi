from .front import run as run
from .program import main as main
