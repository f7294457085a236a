"""Writes the torch files beside this script. Needs torch, nothing else; tests/formats/torch.rs knows what is in them."""

import os
from collections import OrderedDict

import torch

os.chdir(os.path.dirname(os.path.abspath(__file__)))
torch.manual_seed(0)


class Tied(torch.nn.Module):
    """A module whose two matrices share one storage, with a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.wte = torch.nn.Embedding(3, 2)
        self.norm = torch.nn.LayerNorm(2)
        self.lm_head = torch.nn.Linear(2, 3, bias=False)
        self.lm_head.weight = self.wte.weight
        self.register_buffer("ids", torch.arange(4))
        with torch.no_grad():
            self.wte.weight.copy_(torch.arange(6.0).reshape(3, 2) / 4)


torch.save(Tied().state_dict(), "module.pt")

numbers = torch.tensor([0.0, -0.0, 1.0, -2.5, 0.25, float("inf"), float("-inf"), float("nan"), 60000.0, 2.0**-20])
floats = {str(kind).removeprefix("torch."): numbers.to(kind) for kind in [torch.float64, torch.float32, torch.float16, torch.bfloat16]}
torch.save(floats, "floats.pt")

whole = torch.tensor([0, 1, 100, 127, -1, -128])
kinds = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint32, torch.uint16, torch.uint8, torch.bool]
integers = {str(kind).removeprefix("torch."): whole.to(kind) for kind in kinds}
integers["large"] = torch.tensor([-(2**63), 2**63 - 1])
torch.save(integers, "integers.pt")

base = torch.arange(24, dtype=torch.float32)
cube = base.reshape(2, 3, 4)
views = {
    "whole": cube,
    "transposed": base.reshape(4, 6).t(),
    "permuted": cube.permute(2, 0, 1),
    "sliced": cube[:, 1:, ::2],
    "column": base.reshape(4, 6)[:, 5],
    "expanded": base[3:6].reshape(3, 1).expand(3, 4),
    "repeated": base[7].expand(2, 2),
    "windows": base.as_strided((4, 3), (2, 1), 1),
    "ones": cube[1:, 2:3, 3:],
    "scalar": base[23],
    "empty": base[5:5].reshape(0, 7),
    "half": base.to(torch.float16).reshape(4, 6).t()[1:3],
}
torch.save(views, "views.pt")

nested = {
    "none": None,
    "truths": [True, False],
    "numbers": (0, 255, 65535, -1, 2**31 - 1, 2**40, -(2**63), 1.5, float("-inf")),
    "text": "é\n",
    "bytes": b"\x00\xff",
    "size": torch.Size([2, 3]),
    "type": torch.bfloat16,
    7: {0.001: [[], [(torch.arange(3), torch.arange(3) / 2, 1)]]},
    (1, "a"): OrderedDict([("b", 1), ("a", 2)]),
    torch.tensor(5): "a key that is a tensor",
    "shared": [nested_list := [1, 2], nested_list],
    "long": list(range(2500)),
}
torch.save(nested, "nested2.pt")
torch.save(nested, "nested4.pt", pickle_protocol=4)

parameter = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2))
tagged = torch.nn.Parameter(torch.full((2,), 0.5, dtype=torch.bfloat16), requires_grad=False)
tagged.tag = "kept by torch, of no use here"
for place in ["model", "state_dict", "model_state_dict"]:
    inner = OrderedDict(weight=parameter, bias=tagged, count=torch.tensor(9))
    torch.save({"step": 3, place: inner, "loss": torch.tensor(1.5)}, f"{place}.pt")

torch.save({"weight": parameter}, "old.pt", _use_new_zipfile_serialization=False)
torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), "script.pt")

dense = torch.tensor([[0.0, 1.5, 0.0, -2.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.25, 0.0]])
coo = dense.to_sparse()
twice = torch.sparse_coo_tensor(torch.tensor([[0, 0, 2], [1, 1, 3]]), torch.tensor([1.0, 2.0, 4.0]), (3, 4))
hybrid = torch.sparse_coo_tensor(torch.tensor([[2, 0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (3, 2))
torch.save(OrderedDict(
    coo=coo,
    twice=twice,
    hybrid=hybrid,
    half=dense.half().to_sparse(),
    csr=dense.to_sparse_csr(),
    csc=dense.to_sparse_csc(),
    narrow=torch.sparse_csr_tensor(torch.tensor([0, 2, 2, 4], dtype=torch.int32), torch.tensor([1, 3, 0, 2], dtype=torch.int32), torch.tensor([1.5, -2.0, 3.0, 0.25]), (3, 4)),
    parameter=torch.nn.Parameter(dense.to_sparse()),
    empty=torch.zeros(3, 4).to_sparse(),
    whole=torch.tensor([[0, 7]]).to_sparse(),
    dense=dense,
), "sparse.pt")

# A golden model in the two half types, for conversions from end to end.
golden = torch.load("../../golden/forward/sink_sparse/final_model.pt")
for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
    torch.save({k: v.to(dtype) for k, v in golden.items()}, f"sink_sparse_{name}.pt")
