from data_tools.differences import differences

BEFORE = {"settings": {"seed": 1, "bands": 14}, "inputs": [{"name": "a", "bytes": 1}, {"name": "b", "bytes": 2}]}


def test_settings_and_inputs_that_differ_are_named() -> None:
    now = {"settings": {"seed": 2, "bands": 14}, "inputs": [{"name": "a", "bytes": 3}, {"name": "c", "bytes": 2}]}
    assert differences(BEFORE, now) == "seed is 2, not 1; input a has changed; input c in place of b"


def test_inputs_in_another_order_are_other_inputs() -> None:
    now = BEFORE | {"inputs": list(reversed(BEFORE["inputs"]))}
    assert differences(BEFORE, now) == "input b in place of a; input a in place of b"


def test_of_many_differences_the_first_are_named_and_the_others_counted() -> None:
    assert differences({}, {"inputs": ["a"] * 9}) == "9 inputs, not 0"
    assert differences({"inputs": ["a"] * 9}, {"inputs": ["b"] * 9}).endswith("input b in place of a; and 6 more")
