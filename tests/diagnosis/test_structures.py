"""Healthy trainings of seven kinds: none of the three checks says anything against them."""

import functools
import math

import pytest
from structures import (
    awd_lstm,
    packed_classifier,
    recurrent_ppo,
    seq2seq,
    session_streams,
    tbptt_by_hand,
    word_language_model,
)
from support.trainers import quiet_trainer

from echo_torch.errors import RuleError
from echo_torch.lab.console import quiet_lightning

CARRIED = {
    "word language model": word_language_model,
    "AWD-LSTM": awd_lstm,
    "recurrent PPO": recurrent_ppo,
    "sessions": session_streams,
}
FRESH_AT_EACH_BATCH = {
    "seq2seq": seq2seq,
    "TBPTT by hand": tbptt_by_hand,
    "packed classifier": packed_classifier,
}
STRUCTURES = CARRIED | FRESH_AT_EACH_BATCH
WITH_A_STATE = {name: structure for name, structure in STRUCTURES.items() if structure is not packed_classifier}


@functools.cache
def trained(name):
    """The audit of a training over three passes of the loader, and its trainer."""
    structure = STRUCTURES[name]
    module, loader, validation_loader = structure.make_training()
    audit = structure.watch()
    with quiet_lightning():
        trainer = quiet_trainer(max_epochs=3, log_every_n_steps=1, callbacks=[audit], val_check_interval=3)
        trainer.fit(module, loader, validation_loader)
    return audit, trainer


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_data_path_is_healthy(name):
    found = STRUCTURES[name].follow()
    assert found.faults == ()
    assert found.chunks > 3


def test_the_answers_of_a_translation_are_read_in_its_own_batch():
    """Told by place: the target is the source reversed, so no lag fits."""
    found = seq2seq.follow()
    assert (found.reachable_share, found.in_horizon_share) == (1, 1)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_training_is_healthy(name):
    """Most with validations between."""
    audit, trainer = trained(name)
    assert trainer.global_step > 3 * 3
    assert audit.num_faults == 0
    assert set(audit.gaps) <= {0}


@pytest.mark.parametrize("name", CARRIED)
def test_what_is_carried_has_been_compared(name):
    assert trained(name)[0].gaps[0] > 50


@pytest.mark.parametrize("name", CARRIED)
def test_nothing_is_noted_where_a_state_is_carried(name):
    assert trained(name)[0].notes == []


@pytest.mark.parametrize("name", FRESH_AT_EACH_BATCH)
def test_a_state_that_ends_with_its_batch_is_noted_at_most_once(name):
    """Once where the stamps do not tell that each batch begins anew."""
    notes = trained(name)[0].notes
    assert name == "seq2seq" or len(notes) == 1
    assert all(note.startswith("No state is carried") for note in notes)


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", WITH_A_STATE)
def test_the_model_is_healthy(name, is_training):
    model = WITH_A_STATE[name].make_model().train(is_training)
    assert WITH_A_STATE[name].shake(model).faults == ()
    assert all(module.training is is_training for module in model.modules())


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
def test_a_model_without_a_state_is_said_to_have_none(is_training):
    model = packed_classifier.make_model().train(is_training)
    with pytest.raises(RuleError, match="`model` must hand a state on, and Classifier gives outputs alone"):
        packed_classifier.shake(model)
    assert all(module.training is is_training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_loop_without_lightning_learns(name):
    """What is checked are trainings, not dead code."""
    structure = STRUCTURES[name]
    losses = structure.train(structure.make_model())
    quarter = len(losses) // 4
    assert all(map(math.isfinite, losses))
    assert sum(losses[-quarter:]) < 0.9 * sum(losses[:quarter])
