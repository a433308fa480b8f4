from .predictor import Answer as Answer
from .predictor import EchoPredictor as EchoPredictor
from .predictor import OnlineEcho as OnlineEcho
