from .finished import load_model as load_model
from .run_directory import RunDirectory as RunDirectory
from .run_directory import weights_sha256 as weights_sha256
from .runner import train as train
from .sweep import run_all as run_all
