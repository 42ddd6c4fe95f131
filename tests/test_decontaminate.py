"""What training prompts share with held-out ones, by hand."""

import dataclasses

import pytest

from lib.recipes.decontaminate import decontaminator, overlap, words
from lib.worlds.village.tasks import Task, tasks


def test_overlap_is_the_share_of_held_out_tokens_in_common_n_grams():
    held_out = "abcdef"
    assert overlap("xbcdx", held_out, n=3) == 3 / 6
    assert overlap("abcxcde", held_out, n=3) == 5 / 6  # they meet in c
    assert overlap("abxde", held_out, n=3) == 0
    assert overlap("abxde", held_out, n=2) == 4 / 6
    assert overlap(held_out, held_out, n=3) == 1


def test_a_held_out_prompt_shorter_than_n_must_be_there_whole():
    assert overlap("xabx", "ab", n=8) == 1
    assert overlap("xaxb", "ab", n=8) == 0


def test_overlap_refuses_by_name(refuses):
    with refuses("held_out: got no tokens, wanted at least one"):
        overlap("a", "")
    with pytest.raises(ValueError, match="^n: got 0"):
        overlap("a", "a", n=0)


def test_words_numbers_and_marks_are_tokens():
    assert words("What is 1 + 25?") == ("What", "is", "1", "+", "25", "?")


def asked(request):
    return Task("sum", 1, request, "0")


def test_the_same_and_the_longer_sum_are_too_near_and_others_are_not():
    near = decontaminator([asked("What is 1 + 2 + 3 + 4?")])
    assert near(asked("What is 1 + 2 + 3 + 4?"))
    assert near(asked("What is 1 + 2 + 3 + 4 + 5?"))
    assert not near(asked("What is 4 + 3 + 2 + 1?"))
    assert not near(asked("What is 1 + 2?"))


def test_it_is_more_than_the_share_and_not_as_much():
    held_out = asked("What is 1 + 2 + 3 + 4?")
    size = len(words(held_out.request))
    half = asked("What is 1 + 2 + 9?")
    same = overlap(*map(words, (half.request, held_out.request)), n=4)
    assert 0 < same < 1 and (same * size) % 1 == 0
    assert not decontaminator([held_out], n=4, share=same)(half)
    assert decontaminator([held_out], n=4, share=same - 0.01)(half)
    with pytest.raises(ValueError, match="^share: got 1.5"):
        decontaminator([held_out], share=1.5)


def test_the_index_finds_what_comparing_everything_with_everything_finds():
    held_out = tasks("sum", count=40, seed=0, split="test")
    some = tasks("sum", count=150, seed=0) + held_out[:3]
    some = [dataclasses.replace(task, level=1) for task in some]
    near = decontaminator(held_out, n=6)

    def slowly(task):
        tokens = words(task.request)
        every = (words(other.request) for other in held_out)
        return any(overlap(tokens, other, n=6) > 0.5 for other in every)

    found = [near(task) for task in some]
    assert found == [slowly(task) for task in some]
    assert any(found[:150]) and not all(found[:150]) and all(found[150:])
