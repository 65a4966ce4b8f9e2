"""Reading texts: brackets, numbers and expressions."""

from __future__ import annotations

from _defects.defect import Defect

PARSING = (
    Defect(
        "wrong",
        "balanced",
        """
def balanced(text):
    pairs, opened = {")": "(", "]": "[", "}": "{"}, []
    for sign in text:
        if sign in pairs.values():
            opened.append(sign)
        elif sign in pairs and (not opened or opened.pop() != pairs[sign]):
            return False
    return True
""",
        "return True",
        "return not opened",
        ("balanced('a[b(c)]')", "not balanced('(]')", "not balanced('(()')", "not balanced(')')"),
    ),
    Defect(
        "wrong",
        "postfix",
        """
def postfix(text):
    stack = []
    for word in text.split():
        if word in ("+", "-", "*"):
            one, two = stack.pop(), stack.pop()
            stack.append({"+": one + two, "-": one - two, "*": one * two}[word])
        else:
            stack.append(int(word))
    return stack.pop()
""",
        "one, two = stack.pop(), stack.pop()",
        "two, one = stack.pop(), stack.pop()",
        ("postfix('9 4 -') == 5", "postfix('2 3 + 4 *') == 20", "postfix('1') == 1"),
    ),
    Defect(
        "wrong",
        "roman",
        """
def roman(text):
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    numbers = [values[sign] for sign in text]
    total = 0
    for number, following in zip(numbers, [*numbers[1:], 0]):
        total += -number if number <= following else number
    return total
""",
        "if number <= following else",
        "if number < following else",
        ("roman('XIV') == 14", "roman('MMXXVI') == 2026", "roman('CD') == 400"),
    ),
    Defect(
        "loops",
        "tokens",
        """
def tokens(text):
    found, at = [], 0
    while at < len(text):
        end = at + 1
        while text[at].isdigit() and end < len(text) and text[end].isdigit():
            end += 1
        if text[at] != " ":
            found.append(text[at:end])
            at = end
    return found
""",
        "            at = end\n",
        "        at = end\n",
        ("tokens('12 + x') == ['12', '+', 'x']", "tokens('(7)') == ['(', '7', ')']", "tokens('') == []"),
    ),
    Defect(
        "wrong",
        "value",
        """
def value(text):
    signs = [sign for sign in text if sign != " "][::-1]

    def product():
        result = int(signs.pop())
        while signs and signs[-1] in "*/":
            result = result * int(signs.pop()) if signs.pop() == "*" else result // int(signs.pop())
        return result

    result = product()
    while signs:
        result = result + product() if signs.pop() == "+" else product() - result
    return result
""",
        "else product() - result",
        "else result - product()",
        ("value('9 - 2 * 3') == 3", "value('8 / 2 / 2') == 2", "value('1 + 2 - 3 + 4') == 4", "value('5') == 5"),
    ),
)
