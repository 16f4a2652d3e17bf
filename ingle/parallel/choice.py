"""Where a run's model goes: whole into this process, to a GPU, or divided among processes."""

from __future__ import annotations

from ingle.errors import ConfigError
from ingle.models.causal_lm import CausalLM
from ingle.parallel.environment import launch
from ingle.parallel.gpu import OnGpu, check_gpu
from ingle.parallel.layout import Device, Layout, Precision


def lay_out(
    model: CausalLM, precision: Precision = "fp32", expert_parallel: int = 1,
    device: Device = "cpu",
) -> Layout:  # fmt: skip
    """Divide a whole model, the same in every process, among the processes torchrun started, in
    place; without torchrun it stays whole, and may go to a GPU.

    precision: of products and activations. bf16 keeps fp32 weights, their gradients are summed in
    fp32, and norms, router and softmax statistics are computed in fp32. expert_parallel: how many
    processes share the experts of a layer. Raises ConfigError where that is impossible.
    """
    if launch() is not None:
        if device != "cpu":
            raise ConfigError("Processes of torchrun compute on CPUs: device has to be 'cpu'.")
        # FSDP2 takes most of a second to import, which a process alone need not wait for
        from ingle.parallel.mesh import join
        from ingle.parallel.shard import Sharded

        world = join(expert_parallel)
        assert world is not None
        return Sharded(model, world, precision)
    if expert_parallel > 1:
        raise ConfigError("Experts are shared by processes: start the run with torchrun.")
    if device == "cuda":
        check_gpu()
        return OnGpu(model, precision)
    if precision != "fp32":
        raise ConfigError("On CPUs bf16 is for runs started by torchrun (one process is enough).")
    return Layout(model)
