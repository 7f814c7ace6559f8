"""What ``sparsejax train sprout`` is told; light, so that other commands import no training code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparsejax.training.job_settings import JobSettings

RouterLoss = Literal["auto", "none", "distillation", "all", "first10"]


@dataclass(frozen=True)
class SproutSettings(JobSettings):
    """Train a SPROUT masked language model on local text, with fewer and fewer neurons per token.

    Names and defaults are those of the published trainer where it has them.

    Attributes:
      data: text file, or folder of text files; every line is an example.
      out: folder for metrics, the tokenizer, the best and the final network and what --resume needs.
      recipe: default trains routers, spares norms and biases from weight decay, does not attend to padding
        and goes on with long lines in the next row; compat is the published recipe, which does none of that.
      pattern: names of a folder's files.
      validation_data: held-out file or folder; a part of --data if there is none.
      validation_fraction: of the lines of --data to hold out, drawn at random.
      max_samples: lines to read at most.
      tokenizer: WordPiece vocab.txt, or tokenizer.json of the tokenizers library; trained from the text if
        there is none.
      vocab_size: tokens at most of a tokenizer trained from the text; another brings its own.
      d_model: width of the network.
      d_ff: neurons per layer.
      n_layers: layers.
      n_heads: attention heads.
      max_seq_len: tokens per row, and rows of the position table.
      dropout: probability in training.
      gradient_checkpointing: compute layers again in the backward pass, to save memory.
      router: what scores neurons; block and mlp_block score whole blocks of them.
      router_rank: of the router low_rank.
      block_size: neurons per block.
      selection: neuron selects by single neurons, block by whole blocks, whatever the router.
      initial_top_k: neurons per token at first; all if not given.
      final_top_k: neurons per token in the end.
      sparsity_warmup_steps: steps from the first number to the last.
      schedule: traced follows the published warm-up exactly with one compilation; bucketed rounds it up to at
        most 12 numbers and compiles for each.
      router_loss: distillation teaches every router the largest activations; all and first10 are the
        published losses, in every layer at every step and in the first layer at every tenth; auto is
        distillation, or in compat none, and first10 for the router mlp.
      router_loss_weight: of that loss.
      load_balance_weight: of even use of neurons; with the router losses distillation and none.
      z_loss_weight: of small router scores; with the same.
      straight_through: routers learn from the language model's loss, too, through their selections.
      num_epochs: passes over the training lines.
      steps: optimiser steps, instead of --num-epochs.
      batch_size: rows per step, over all devices.
      learning_rate: highest one.
      router_lr_multiplier: factor of it for routers; compat ignores it, as the published schedule did.
      warmup_steps: steps in which the learning rate rises.
      weight_decay: per step, times the learning rate.
      gradient_clip: longest gradient; 0 for any.
      mixed_precision: compute in bfloat16 where the device has it; parameters and states stay float32.
      seed: of the first parameters, the order of lines, masks and dropout.
      devices: parts that a batch is spread over.
      log_interval: steps between two lines of metrics.
      eval_interval: steps between two validations.
      save_interval: steps between two saves of what --resume needs.
      plots: draw PNGs at the end (needs matplotlib).
      resume: continue the unfinished run in --out, or begin if there is none; stands for the published
        --resume_from PATH.
      quiet: print nothing but errors.
      plain: lines instead of a progress bar.
    """

    data: Path
    out: Annotated[Path, tyro.conf.arg(aliases=("--checkpoint-dir",))]
    recipe: Literal["default", "compat"] = "default"
    pattern: str = "*.txt"
    validation_data: Path | None = None
    validation_fraction: float = 0.05
    max_samples: int | None = None
    tokenizer: Path | None = None
    vocab_size: int = 30522
    d_model: int = 512
    d_ff: int = 2048
    n_layers: int = 6
    n_heads: int = 8
    max_seq_len: int = 128
    dropout: float = 0.1
    gradient_checkpointing: bool = False
    router: Literal["linear", "mlp", "low_rank", "block", "mlp_block"] = "linear"
    router_rank: int = 64
    block_size: int = 64
    selection: Literal["neuron", "block"] = "neuron"
    initial_top_k: int | None = None
    final_top_k: int = 512
    sparsity_warmup_steps: int = 10000
    schedule: Literal["traced", "bucketed"] = "traced"
    router_loss: RouterLoss = "auto"
    router_loss_weight: float = 0.1
    load_balance_weight: float = 0.0
    z_loss_weight: float = 0.0
    straight_through: bool = False
    num_epochs: int = 3
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 3e-4
    router_lr_multiplier: float = 5.0
    warmup_steps: int = 1000
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    mixed_precision: bool = True
    seed: int = 0
    devices: int = 1
    log_interval: int = 100
    eval_interval: int = 1000
    save_interval: int = 5000
    plots: bool = True
    resume: bool = False
    quiet: bool = False
    plain: bool = False

    @property
    def taught(self) -> str:
        """The router loss that "auto" stands for."""
        if self.router_loss != "auto":
            return self.router_loss
        if self.recipe == "default":
            return "distillation"
        return "first10" if self.router == "mlp" else "none"

    @property
    def balanced(self) -> bool:
        """Whether the routers' scores have a loss of their own beside what they are taught."""
        return self.load_balance_weight > 0 or self.z_loss_weight > 0
