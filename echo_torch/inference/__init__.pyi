from .online import OnlineEcho as OnlineEcho
from .predictor import Answer as Answer
from .predictor import EchoPredictor as EchoPredictor
