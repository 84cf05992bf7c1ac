"""The builds as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from .results import Results

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def junit(results: Results, suite: str = "optimize build") -> str:
    """One test case a build: an error where there is no bundle, a failure for each thing that it misses."""
    faults = [results.faults(each) for each in results.results]
    errors = sum(bool(each.error) for each in results.results)
    told = {
        "name": suite,
        "tests": str(len(faults)),
        "errors": str(errors),
        "failures": str(sum(map(bool, faults)) - errors),
        "time": f"{sum(each.seconds for each in results.results):.1f}",
    }
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(root, "testsuite", told)
    for each, wrong in zip(results.results, faults, strict=True):
        named = {"classname": _clean(each.model), "name": each.name, "time": f"{each.seconds:.1f}"}
        case = ElementTree.SubElement(element, "testcase", named)
        for sentence in wrong:
            kind = "error" if sentence == each.error else "failure"
            ElementTree.SubElement(case, kind, {"message": _clean(sentence)})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _clean(text: str) -> str:
    """Without what no XML can hold."""
    return _NO_XML.sub("?", text)
