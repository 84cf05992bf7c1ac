"""The module inside of what parallel and compiled training put around it, or the reason why there is none."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import CaptureError


def unwrapped(module: Any) -> nn.Module:
    """The module itself: without torch.compile's and DataParallel's shells.

    Raises:
        CaptureError: it is no module, scripted, or its tensors are on another device, or without data.
    """
    while isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule):
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
            module = inner
        else:
            break
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise CaptureError(
            f"a {kind} is not a model: give an nn.Module, a directory, an .onnx or a .pt2 file."
        )
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"its part '{name}'" if name else "it"
            raise CaptureError(
                f"{kind} cannot be traced, because {what} is TorchScript, which is no Python any more: give "
                "the module that was scripted."
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type == "meta":
            raise CaptureError(f"the weight '{name}' of {kind} is on the meta device: load its values first.")
        if tensor.device.type != "cpu":
            raise CaptureError(
                f"the weight '{name}' of {kind} is on {tensor.device}: move the module to the CPU."
            )
    return module
