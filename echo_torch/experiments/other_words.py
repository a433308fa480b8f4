"""Words that people bring from Keras, PyTorch and elsewhere, and what they are called here.

A guess by meaning comes before one by spelling: `lr` is spelled like `layers`, and means `learning_rate`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from echo_torch.errors import did_you_mean, suggest

# Names here, the likelier meaning first, where one of them is known in the place: what people call them.
_OPTIONS = {
    "sequences updates": "epoch epochs train_epochs max_epoch max_epochs samples examples train_samples",
    "updates": "steps_to_train train_steps training_steps max_steps iterations iters iter niter num_iter max_iter "
    "max_iters batches num_batches sequences",
    "length chunk": "seq seq_len seq_length seqlen sequence_length sequence_len max_len maxlen max_length",
    "window chunk length": "timesteps time_steps timestep n_steps num_steps n_in",
    "window": "window_size window_length win lookback look_back context context_length context_size history chunk",
    "chunk window": "bptt tbptt bptt_steps tbptt_steps truncated_bptt_steps truncated_backprop_length unroll "
    "unroll_length block_size chunk_size chunk_length chunk_len window",
    "vocabulary_size": "vocab vocab_size tokens ntoken ntokens embeddings features feature_size input_size input_dim "
    "output_size output_dim classes unique symbols alphabet alphabet_size one_hot_depth max_value",
    "lag": "lags delay shift offset echo_step time_lag",
    "batch_size lanes": "bs bsz batch batchsize nbatch minibatch mini_batch minibatch_size mini_batch_size "
    "train_batch_size per_device_train_batch_size batch_size",
    "lanes batch_size": "streams rows lanes",
    "data file": "dataset csv data_path data_file train_file train_data input_file input corpus text path",
    "column": "col field column_name usecols",
    "series": "group groups groupby group_by series_id",
    "missing": "missing_rate missing_share mask_rate mask_prob p_missing",
    "reset_every": "reset_interval reset_steps reset_after episode_length",
    "model": "net network arch architecture cell cell_type rnn rnn_type layer_type",
    "model_options": "model_args model_kwargs kwargs",
    "hidden_size hidden_sizes": "units lstm_units rnn_units hidden hid hid_size nhid hidden_units hidden_dim "
    "hidden_dims dim_hidden hdim h_dim d_model state_size neurons rnn_size memory_cells memory_units cells nodes",
    "layers": "depth layer nlayers nlayer hidden_layers stack",
    "encoding": "encode one_hot onehot",
    "init": "initializer weight_init kernel_initializer initialization",
    "learning_rate learning_rates": "lr base_lr eta alpha step_size",
    "clip_norm": "clip clipnorm grad_clip clip_grad clip_grad_norm gradient_clip gradient_clip_val gradient_clipping "
    "max_grad_norm max_norm grad_norm norm",
    "carry": "stateful stateless keep_state carry_state reset_state reset_states",
    "cut": "detach truncate truncated",
    "accelerator": "device dev gpu cuda cpu use_gpu use_cuda no_cuda",
    "devices": "gpus ngpu ngpus gpu_count nproc nproc_per_node processes world_size ranks",
    "workers": "loader_workers dataloader_workers data_workers",
    "threads": "cores cpu_threads",
    "seed seeds": "random_seed rng rng_seed random_state manual_seed",
    "seeds": "repeats repetitions trials",
    "validate_every": "val_every eval_every val_check_interval validation_freq val_freq eval_freq eval_interval "
    "eval_steps",
    "log_every": "log_interval log_freq log_every_n_steps logging_steps print_every print_freq",
    "checkpoint_every": "save_every save_freq save_interval save_steps ckpt_every checkpoint_freq checkpoint_interval",
    "tensorboard": "tb use_tensorboard",
    "run_dir run": "output out outdir out_dir output_dir log_dir logdir save_dir dir results results_dir "
    "checkpoint_dir ckpt_dir default_root_dir run_name exp_name experiment_name",
    "run": "run_dir model_dir",
    "resume run": "checkpoint ckpt ckpt_path load restore resume_from resume_from_checkpoint from_checkpoint continue",
    "quiet": "silent",
    "no_progress": "no_bar no_pbar no_tqdm disable_tqdm enable_progress_bar",
    "config": "cfg conf yaml config_file",
    "mode": "experiment exp task example",
    "batches": "chunks",
}
_CHOICES = {
    "mode": {
        "echo": "current echo_current current_observation identity copy repeat",
        "stateful": "beginner beginners beginners_mistake mistake without_context no_context lag_without_context naive",
        "lag": "context with_context echo_lag lag_observation lagged delay window windows windowed",
        "masked": "mask masks masking",
        "whole": "prefix prefixes unfold unfolded entire growing",
        "sequence": "seq seq2seq many_to_many whole_sequence full_sequence",
        "aligned": "lanes tbptt bptt continuous stream streams endless",
    },
    "command": {
        "train": "fit run learn experiment",
        "show": "preview print display data batches example inspect",
        "reach": "explain check analyse analyze diagnose ceiling",
        "sweep": "grid search gridsearch grid_search tune many",
        "compare": "comparison arms",
        "evaluate": "eval test score validate",
        "predict": "infer inference answer generate",
        "stream": "online serve",
        "report": "page html",
        "watch": "audit profile monitor",
    },
    "accelerator": {"cuda": "gpu gpus nvidia cuda:0 gpu:0"},
    "carry": {
        "keep": "true yes on stateful carry carried keep_state",
        "reset": "false no off none stateless zero zeros fresh",
    },
    "cut": {"chunk": "detach detached truncated batch window", "sequence": "none never no off full false"},
    "model": {"rnn": "elman simplernn simple_rnn", "mlp": "dense feedforward feed_forward ffn fc"},
    "encoding": {"one-hot": "onehot categorical", "digits": "digit decimal"},
    "init": {"keras": "tensorflow tf glorot xavier orthogonal", "torch": "pytorch default"},
    "kernel": {"direct": "fast manual by_hand", "autograd": "torch pytorch"},
}
_COUNTED = re.compile(r"(n|num|nb|number_of)_")  # n_units, nb_epoch


def _inverted(table: Mapping[str, str]) -> dict[str, list[str]]:
    """What people say -> what it may mean here."""
    found: dict[str, list[str]] = {}
    for names, words in table.items():
        for word in words.split():
            found.setdefault(word, []).extend(names.split())
    return found


_MEANINGS = _inverted(_OPTIONS)


def suggest_option(word: object, known: Iterable[str]) -> str:
    """As `suggest`, for the name of an option or a flag.

    >>> suggest_option("epochs", ["sequences", "updates"]), suggest_option("--n-units", ["--hidden-size"])
    (" (did you mean 'sequences'?)", " (did you mean '--hidden-size'?)")

    Args:
        word: What somebody wrote.
        known: Names, or flags.
    """
    by_name = {_plain(one): one for one in known}
    meant = next((by_name[name] for name in meanings(word) if name in by_name), None)
    if meant:
        return did_you_mean(meant)
    # What switches something off is spelled like what asks for it.
    same = (one for name, one in by_name.items() if name.startswith("no_") or not _plain(word).startswith("no_"))
    return suggest(word, same)


def meanings(word: object) -> list[str]:
    """Names of options that a word of another library may stand for, the likeliest first.

    Args:
        word: A name or a flag.
    """
    name = _plain(word)
    counted = _COUNTED.sub("", name, count=1) if _COUNTED.match(name) else ""
    return [*_MEANINGS.get(name, []), *([counted, *_MEANINGS.get(counted, [])] if counted else [])]


def suggest_choice(name: str, word: object, choices: Collection[str]) -> str:
    """As `suggest`, for one of the words that may stand in a place.

    >>> suggest_choice("mode", "beginner", ["echo", "stateful"]), suggest_choice("carry", "Keep", ["keep", "reset"])
    (" (did you mean 'stateful'?)", " (did you mean 'keep'?)")

    Args:
        name: Of the option; or "mode", or "command".
        word: What somebody wrote.
        choices: The words of which one is asked for.
    """
    return _same(word, choices) or _by_meaning(word, _CHOICES.get(name, {})) or suggest(word, choices)


def _same(word: object, known: Iterable[str]) -> str:
    """A word that differs in capitals, hyphens and underscores alone."""
    found = {_plain(one): one for one in known}.get(_plain(word))
    return did_you_mean(found) if found else ""


def _by_meaning(word: object, table: Mapping[str, str]) -> str:
    meant = _inverted(table).get(_plain(word))
    return did_you_mean(meant[0]) if meant else ""


def _plain(word: object) -> str:
    return str(word).lstrip("-").lower().replace("-", "_").replace(" ", "_")
