"""Draws the pictures of the title page, and computes its numbers.

`python -m book.title_page` writes book/_static/pipeline.svg, pipeline-narrow.svg and
lag.svg. They are put into the page as inline SVG, so that text is text and `currentColor`
follows the theme. A test draws them again and computes every number that the page quotes.
"""

import textwrap
from pathlib import Path

import torch
from torch import Tensor

from lib.rollout import Rollout
from lib.worlds import environment, mdp
from lib.worlds import thermostat as room
from lib.worlds.environment import play

STATIC = Path(__file__).parent / "_static"
LAG, STEPS = 3, 50  # of the figure

STYLE = """<style>
.tp text { fill: currentColor; font-family: inherit; }
.tp .box { fill: none; stroke: currentColor; stroke-width: 1.2; }
.tp .line { fill: none; stroke: currentColor; stroke-width: 1.4; }
.tp .head { fill: currentColor; }
.tp .policy { stroke: #0072B2; } .tp .reward { stroke: #009E73; }
.tp .thick { stroke-width: 2.4; fill: none; stroke-linejoin: round; }
.tp .faint { opacity: .75; } .tp .dashed { stroke-dasharray: 5 4; }
html[data-theme="dark"] .tp .policy { stroke: #56B4E9; }
html[data-theme="dark"] .tp .reward { stroke: #2fc79a; }
</style>"""

LOOP = (
    # stage, in code, in a room, in a sentence (None: one and the same code), colour
    ("prompt", "reset", "a room, 65 °F", "a question", ""),
    (
        "completion",
        "play",
        "heat: on, on, off …",
        "an answer, token by token",
        "policy",
    ),
    (
        "reward",
        "rewards",
        "1 a step, at 70 ± 2 °F",
        "a score, at the end",
        "reward",
    ),
    ("advantage", "advantages", "better than could be expected?", None, ""),
    ("loss", "losses", "its gradient: more of that, less of the rest", None, ""),
    ("update", "fit", "one step of the optimiser", None, "policy"),
)
ALT = (
    "The loop of the book, six steps: prompt, completion, reward, advantage, loss, update,"
    " and back with the next batch. In a room the prompt is a temperature, the completion a"
    " row of heater commands, the reward 1 for each step within two degrees of 70 °F. In a"
    " sentence they are a question, an answer written token by token, and a judge’s score at"
    " the end. From the advantage on, both run through the same code."
)


def pipeline() -> str:
    """The loop in one row of six columns, for pages at least 600 px wide."""
    parts, width, gap = [], 112, 22
    for column, (stage, code, upper, lower, colour) in enumerate(LOOP):
        x = 1 + column * (width + gap)
        middle = x + width / 2
        parts.append(_text(middle, 20, stage, size=16, weight=700))
        parts.append(_text(middle, 205, code, size=13, mono=True, faint=True))
        if lower is None:
            parts.append(_box(x, 34, width, 152, upper, colour))
        else:
            parts.append(_box(x, 34, width, 70, upper, colour))
            parts.append(_box(x, 116, width, 70, lower, colour))
        if column:
            for y in (69, 151) if lower is not None or column == 3 else (110,):
                parts.append(_arrow(x - gap + 2, y, x - 2, y))
    right, left = 1 + 5 * (width + gap) + width / 2, 1 + width / 2
    parts.append(f'<path class="line" d="M{right} 214V240H{left}V220"/>')
    parts.append(_head(left, 213, "up"))
    parts.append(_text((left + right) / 2, 234, "the next batch", size=13, faint=True))
    return _svg(784, 250, ALT, parts, "tp-wide")


def pipeline_narrow() -> str:
    """The same loop in six rows, for phones."""
    parts, height, gap, left = [], 66, 18, 112
    for row, (stage, code, upper, lower, colour) in enumerate(LOOP):
        y = 1 + row * (height + gap)
        parts.append(_text(20, y + 30, stage, size=15, weight=700, anchor="start"))
        parts.append(
            _text(20, y + 49, code, size=13, mono=True, faint=True, anchor="start")
        )
        if lower is None:
            parts.append(_box(left, y, 226, height, upper, colour))
        else:
            parts.append(_box(left, y, 109, height, upper, colour))
            parts.append(_box(left + 117, y, 109, height, lower, colour))
        if row:
            for x in (166, 284) if lower is not None or row == 3 else (225,):
                parts.append(_arrow(x, y - gap + 2, x, y - 2))
    first, last = 1 + height / 2, 1 + 5 * (height + gap) + height / 2
    parts.append(f'<path class="line" d="M14 {last - 5}H5V{first - 5}H10"/>')
    parts.append(_head(16, first - 5, "right"))
    return _svg(340, last + height / 2 + 2, ALT, parts, "tp-narrow")


def best_policy(world: mdp.FiniteMDP) -> Tensor:
    """(S, 2) the optimal policy; where both actions are as good, the heater stays off."""
    off, on = mdp.value_iteration(world)[1].unbind(-1)
    heat = (on - off > 1e-9).double()
    return torch.stack((1 - heat, heat), -1)


def time_in_band(world: mdp.FiniteMDP, policy: Tensor, *, last: int = 1000) -> float:
    """Expected share of rewarded steps among the `last` of twice as many."""
    reward, move = mdp.under(world, policy)
    states, share = world.start, 0.0
    for step in range(2 * last):
        share += (states @ reward).item() / last if step >= last else 0.0
        states = states @ move
    return share


def numbers() -> dict[str, str]:
    """What the title page quotes, as it quotes it."""
    quoted = {}
    for lag in (0, LAG):
        world, degrees = room.thermostat(lag=lag), room.temperatures(lag=lag)
        rule, best = room.rule(degrees), best_policy(world)
        quoted[f"rule, lag {lag}"] = (
            f"{world.start @ mdp.policy_values(world, rule):.2f}"
        )
        quoted[f"best, lag {lag}"] = (
            f"{world.start @ mdp.policy_values(world, best):.2f}"
        )
    quoted["rule in band"] = f"{100 * time_in_band(world, rule):.0f} %"
    quoted["best in band"] = (
        f"{int(1000 * time_in_band(world, best)) / 10} %"  # at least
    )
    return quoted


def traces() -> tuple[list[float], list[float]]:
    """°F over time with the same draughts: (the rule, the best policy), heater lagging."""
    world, degrees = room.thermostat(lag=LAG), room.temperatures(lag=LAG)
    played = []
    for policy in (room.rule(degrees), best_policy(world)):
        generator = torch.Generator().manual_seed(0)
        rollout = _play(policy, mdp.world(world, horizon=STEPS), generator)
        played.append(degrees[rollout.states[0]].tolist())
    return played[0], played[1]


def lag() -> str:
    """Temperature against time under both policies, with the band that is rewarded."""
    rule, best = traces()

    def x(step: float) -> float:
        return 46 + 6.2 * step

    def y(temperature: float) -> float:
        return 20 + 20 * (76 - temperature)

    def line(values: list[float]) -> str:
        return " ".join(f"{x(t):.1f},{y(v):.0f}" for t, v in enumerate(values))

    parts = [
        f'<rect x="{x(0)}" y="{y(72)}" width="{x(STEPS) - x(0):.1f}" height="{y(68) - y(72)}"'
        ' fill="#009E73" opacity=".18"/>',
        f'<path class="line" d="M{x(0)} {y(76.5)}V{y(62)}H{x(STEPS):.1f}"/>',
    ]
    for tick in (62, 64, 66, 68, 70, 72, 74, 76):
        parts.append(_text(38, y(tick) + 5, f"{tick}", size=16, anchor="end"))
    for tick in range(0, STEPS + 1, 10):
        parts.append(_text(x(tick), y(62) + 20, f"{tick}", size=16))
    parts += [
        _text(x(STEPS / 2), y(62) + 40, "steps", size=16),
        _text(x(0) + 8, y(76) + 5, "°F", size=16, anchor="start"),
        _text(x(STEPS) + 6, y(69.6), "rewarded", size=16, anchor="start", faint=True),
        _text(
            x(STEPS) + 6, y(69.6) + 19, "70 ± 2 °F", size=16, anchor="start", faint=True
        ),
        f'<polyline class="thick policy" points="{line(rule)}"/>',
        f'<polyline class="line thick" points="{line(best)}"/>',
    ]
    for path, name in ((rule, "the rule"), (best, "the best")):
        at = (x(STEPS) + 6, y(path[-1]) + 5)
        parts.append(_text(*at, name, size=16, weight=700, anchor="start"))
    alt = (
        "Temperature against time when heat arrives three steps late. Under the rule the room"
        f" swings between {min(rule[20:]):.0f} and {max(rule[20:]):.0f} °F, in and out of the"
        " rewarded band; under the best policy it stays between"
        f" {min(best[20:]):.0f} and {max(best[20:]):.0f} °F."
    )
    return _svg(450, 350, alt, parts, "tp-lag")


def files() -> dict[str, str]:
    """Every picture by its name in book/_static."""
    return {
        "pipeline.svg": pipeline(),
        "pipeline-narrow.svg": pipeline_narrow(),
        "lag.svg": lag(),
    }


def _play(
    policy: Tensor, world: environment.World, generator: torch.Generator
) -> Rollout:
    logits = policy.log()  # (S, A): -inf is a probability of 0
    return play(lambda states: logits[states], world, batch=1, generator=generator)


def _svg(width: float, height: float, alt: str, parts: list[str], name: str) -> str:
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' class="tp {name}" role="img" aria-label="{alt}">'
    )
    return "\n".join([opening, STYLE, *parts, "</svg>"]) + "\n"


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    weight: int = 400,
    anchor: str = "middle",
    mono: bool = False,
    faint: bool = False,
) -> str:
    look = f"font-size:{size}px;font-weight:{weight}"
    look += ";font-family:ui-monospace,monospace" if mono else ""
    shade = ' class="faint"' if faint else ""
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {place}{shade} style="{look}">{words}</text>'


def _box(
    x: float, y: float, width: float, height: float, words: str, colour: str
) -> str:
    lines = textwrap.wrap(words, int(width / 8))
    top = y + height / 2 + 5 - 9 * (len(lines) - 1)
    said = [
        _text(x + width / 2, top + 18 * i, line, size=14)
        for i, line in enumerate(lines)
    ]
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"'
    thick = f"{colour} thick" if colour else ""
    return "\n".join([f'<rect class="box {thick}" {place}/>', *said])


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    direction = "right" if y0 == y1 else "down"
    line = f'<path class="line" d="M{x0:g} {y0:g}L{x1:g} {y1:g}"/>'
    return line + _head(x1, y1, direction)


def _head(x: float, y: float, direction: str) -> str:
    shape = {"right": "l-8 -4v8z", "down": "l-4 -8h8z", "up": "l-4 8h8z"}[direction]
    return f'<path class="head" d="M{x:g} {y:g}{shape}"/>'


def main() -> None:
    """Write the pictures; print the numbers."""
    for name, picture in files().items():
        (STATIC / name).write_text(picture, encoding="utf-8")
        print(f"wrote {STATIC / name}")
    for what, number in numbers().items():
        print(f"{what}: {number}")


if __name__ == "__main__":
    main()
