"""Check of LaTeX tables without a compiler: environments, braces, columns, special characters."""

import re


def check_latex(text: str) -> None:
    """Assert that a compiler would accept a table."""
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == ended[::-1]
    bare = re.sub(r"\\[&%$#_{}]", "", text.partition("\n")[2])  # without escaped characters and the first comment
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    assert "#" not in bare
    outside = re.sub(r"\$[^$]*\$", "", bare)  # of mathematics
    assert not {"_", "^", "<", ">"} & {*outside}
    assert outside.isascii()
    columns = len(re.search(r"\\begin{tabular}{(\w+)}", text)[1])
    for line in bare.splitlines():
        if line.endswith("\\\\"):
            spans = [int(span) for span in re.findall(r"\\multicolumn{(\d+)}", line)]
            assert line.count("&") + 1 + sum(spans) - len(spans) == columns, line
