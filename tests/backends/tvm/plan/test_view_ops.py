"""The view over Relax names operators as the other dialects do."""

import pytest
import zoo
from graphwright.backends.tvm.frontend.relax import relax_module
from graphwright.backends.tvm.plan.view import RelaxView
from graphwright.backends.tvm.plan.view_ops import RULES
from graphwright.ir.ops.table import OPERATORS
from tvm_run import sizes_of


def test_a_rule_that_is_given_a_name_is_given_one_of_the_vocabulary():
    cells = [cell.cell_contents for rule in RULES.values() for cell in rule.__closure__ or ()]
    names = {name for name in cells if isinstance(name, str)}
    assert {"add", "sqrt", "mean", "reshape", "unsqueeze"} <= names
    assert names <= OPERATORS.keys()


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_function_names_what_is_listed_or_its_own(name):
    program, case = zoo.fx_program(name), zoo.ARCHITECTURES[name]
    feed = {key: tensor.numpy() for key, tensor in case.inputs(2, 7).items()}
    main = relax_module(program, sizes_of(program, feed)).module["main"]
    names = {value.op for value in RelaxView(main)}
    assert {"transpose", "matmul", "embedding"} <= names
    assert {name for name in names if not name.startswith("relax.")} <= OPERATORS.keys()
