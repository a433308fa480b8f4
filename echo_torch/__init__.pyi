from .data import Chunk as Chunk
from .data import EchoStream as EchoStream
from .data import Frames as Frames
from .data import LaneLayout as LaneLayout
from .data import RandomSymbols as RandomSymbols
from .data import WindowLayout as WindowLayout
from .data import frame_windows as frame_windows
from .data import generate_sequence as generate_sequence
from .diagnosis import Stamps as Stamps
from .experiments import EXPERIMENTS as EXPERIMENTS
from .experiments import Configuration as Configuration
from .experiments import configure as configure
from .inference import EchoPredictor as EchoPredictor
from .inference import OnlineEcho as OnlineEcho
from .lab import RunDirectory as RunDirectory
from .lab import train as train
from .models import EchoLSTM as EchoLSTM
from .models import LSTMState as LSTMState
from .models import detach_state as detach_state
from .models import one_hot_decode as one_hot_decode
from .models import one_hot_encode as one_hot_encode
from .models import reset_state as reset_state
from .training import EchoModule as EchoModule
from .training import Evaluation as Evaluation
from .training import evaluate as evaluate

__version__: str
