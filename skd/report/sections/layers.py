"""The layers of a student that was made of its teacher's, as a model card tells them."""

from __future__ import annotations

from skd.report.sections.cells import NONE, table
from skd.results.layers import LayerChoice


def layers_section(choice: LayerChoice | None, layers: int) -> str:
    """Empty where the student is another model. `layers`: how many the teacher has."""
    if choice is None:
        return ""
    kept = ", ".join(map(str, choice.kept))
    return f"""
## Layers

The student began as {len(choice.kept)} of the teacher's {layers} layers: {kept}.
{_how(choice)} Losses are cross-entropy on {choice.rows} training rows ({choice.tokens:,} response
tokens) that healing did not see, nats per token.

{_losses(choice)}
{_importance(choice)}"""


def _how(choice: LayerChoice) -> str:
    if not choice.importance:
        return "They were named by hand."
    return "They were chosen in rounds: each left out the layer that the loss missed least."


def _losses(choice: LayerChoice) -> str:
    losses = {
        "the whole teacher": choice.whole_loss,
        "as many layers, evenly spaced": choice.even_loss,
        "these layers": choice.cut_loss,
        "these layers, healed by distillation": choice.healed_loss,
    }
    return table(["", "loss"], [[name, _number(loss)] for name, loss in losses.items()])


def _importance(choice: LayerChoice) -> str:
    """A row per layer; empty where layers were named by hand."""
    if not choice.importance:
        return ""
    fate = {left.layer: f"left out in round {n}" for n, left in enumerate(choice.left_out, 1)}
    rows = [
        [str(layer), f"{cost:+.3f}", fate.get(layer, "kept")]
        for layer, cost in enumerate(choice.importance)
    ]
    header = ["layer", "its absence alone adds to the loss", ""]
    return f"\n{table(header, rows)}\n"


def _number(loss: float | None) -> str:
    return NONE if loss is None else f"{loss:.3f}"
