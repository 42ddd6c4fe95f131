"""Plausible mistakes in the exercises of chapter 14, by the exercise they belong to."""

PRICE = """
def price(algorithm, weights, answers, length, epochs=1):
    once = {{"SFT": 0, "DPO": 2, "GRPO": {grpo}, "PPO": {ppo}}}[algorithm]
    often = {often} if algorithm == "PPO" else 6
    texts = {texts}
    return ({sum}) * weights * texts * length
"""
RIGHT_PRICE = {
    "grpo": "4",
    "ppo": "8",
    "often": "12",
    "texts": '2 * answers if algorithm == "DPO" else answers',
    "sum": "once + often * epochs",
}

BUSY = """
def busy(prompts, mask, seconds, weights, peak):
    return float({factor} * weights * {tokens} / (seconds * peak))
"""

GPUS = """
import re
from math import prod


def gpus(text):
    {gpus}


def fits(text, hours, gpu_hours):
    return {fits}
"""
RIGHT_GPUS = {
    "gpus": "found = re.match(r'[\\d,]+(\\s*[*x×]\\s*[\\d,]+)*', text.strip())[0]; "
    "return prod(int(n.replace(',', '')) for n in re.findall(r'[\\d,]+', found))",
    "fits": "abs(gpus(text) * hours / gpu_hours - 1) <= 0.02",
}

PREDICTION = """
def prediction():
    return {{"updates": {updates}, "shown": {shown}, "talk": {talk}, "strings": {strings}}}
"""
SEEN = {"updates": "1", "shown": "-1", "talk": "1", "strings": "0"}

WRONG = {
    "ex14_2": [
        # the reference is asked in every epoch
        PRICE.format(**{**RIGHT_PRICE, "sum": "(once + often) * epochs"}),
        # a pair is taken for one text
        PRICE.format(**{**RIGHT_PRICE, "texts": "answers"}),
        # nobody samples
        PRICE.format(**{**RIGHT_PRICE, "grpo": "2"}),
        # the critic reads and does not learn
        PRICE.format(**{**RIGHT_PRICE, "often": "6"}),
        # epochs are forgotten
        PRICE.format(**{**RIGHT_PRICE, "sum": "once + often"}),
    ],
    "ex14_3": [
        # as it was reported
        BUSY.format(factor=6, tokens="mask.numel()"),
        # answers alone
        BUSY.format(factor=6, tokens="mask.sum()"),
        # prompts are read only
        BUSY.format(factor=1, tokens="(6 * mask.sum() + 2 * prompts.sum())"),
        # forward only
        BUSY.format(factor=2, tokens="(mask.sum() + prompts.sum())"),
    ],
    "ex14_4": [
        # as it was
        GPUS.format(
            **{**RIGHT_GPUS, "gpus": "return int(''.join(filter(str.isdigit, text)))"}
        ),
        # all numbers of the text are multiplied, the 800 of H800 as well
        GPUS.format(
            **{
                **RIGHT_GPUS,
                "gpus": "return prod(map(int, re.findall(r'\\d+', "
                "text.replace(',', ''))))",
            }
        ),
        # the first number alone
        GPUS.format(
            **{
                **RIGHT_GPUS,
                "gpus": "return int(re.match(r'\\d+', text.replace(',', ''))[0])",
            }
        ),
        # too many are accepted
        GPUS.format(**{**RIGHT_GPUS, "fits": "gpus(text) * hours >= 0.98 * gpu_hours"}),
        # a tolerance of two per mille
        GPUS.format(
            **{
                **RIGHT_GPUS,
                "fits": "abs(gpus(text) * hours - gpu_hours) < 0.002 * gpu_hours",
            }
        ),
    ],
    "ex14_5": [
        # all else is equal
        PREDICTION.format(**{**SEEN, "updates": "0"}),
        # sixteen epochs are too few to learn anything by heart
        PREDICTION.format(**{**SEEN, "shown": "0"}),
        # more data make everything less surprising
        PREDICTION.format(**{**SEEN, "talk": "-1"}),
        # talk is what the base model knows already
        PREDICTION.format(**{**SEEN, "talk": "0"}),
        # everything that is not shown suffers
        PREDICTION.format(**{**SEEN, "strings": "1"}),
        # no prediction for talk
        'def prediction():\n    return {"updates": 1, "shown": -1, "strings": 0}\n',
    ],
}
