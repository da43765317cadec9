"""Check of LaTeX tables without a compiler: environments, braces, columns, special characters."""

import re


def check_latex(text: str) -> None:
    """Assert that a compiler would accept a table."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("% "))
    open_environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end){(\w+)}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    bare = re.sub(r"\\[&%$#_{}]", "", text)  # without escaped characters
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    assert "#" not in bare
    outside = re.sub(r"\$[^$]*\$|\\label{[^}]*}", "", bare)  # of mathematics
    assert not {"_", "^", "<", ">"} & {*outside}
    assert outside.isascii()
    columns = len(re.search(r"\\begin{tabular}{(\w+)}", text)[1])
    for line in bare.splitlines():
        if line.endswith("\\\\"):
            spans = [int(span) for span in re.findall(r"\\multicolumn{(\d+)}", line)]
            assert line.count("&") + 1 + sum(spans) - len(spans) == columns, line
            assert line[0] not in "[*", "an argument of the line before"
