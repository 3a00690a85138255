"""A network as boxes and arrows, read off a forward pass.

A paper names the modules that are worth a box. Which of them leads to which is found by going back from the input of
each through the graph that autograd keeps, so that no drawing can differ from the code.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from npcrepro.base.errors import InputError
from npcrepro.book.lesson.diagram import Arrow, Diagram, Node
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Profile

OPERATIONS = {"CatBackward": "concatenate", "AddBackward": "add", "MulBackward": "multiply"}
IMAGE = -1  # in place of the number of a block


@dataclass(frozen=True)
class Block:
    """A box of the drawing.

    Attributes:
        path: of the module in the network, ``"conv1"``; with ``*`` several modules, which share one box.
        label: its name, with what makes it special: ``"conv3, 9 × 9"``.
        kind: what the box does, one of ``KINDS`` of `diagram.py`.
    """

    path: str
    label: str
    kind: str = "features"


def blocks_of(key: str, method: str) -> list[Block]:
    """The boxes that ``paper.yaml`` names under ``lesson`` and ``blocks`` for a method: path, label and kind of each.

    Example:
        >>> blocks_of("li2018", "stepwise")[0]
        Block(path='relu1', label='conv1, 5 × 5', kind='features')
    """
    return [Block(*block) for block in registry.reported(key)["lesson"]["blocks"][method]]


class _Trace:
    """Which block made which map, and which blocks lead to which, from the graph that autograd keeps."""

    def __init__(self, image: Tensor):
        self.image = image
        self.made: dict[Any, int] = {}  # node of the graph to the block that it ends
        self.kept: list[Tensor] = []  # the graph lives as long as its tensors
        self.size: dict[int, tuple[int, ...]] = {}
        self.arrows: dict[tuple[int, int], str] = {}

    def enter(self, block: int, inputs: Any) -> None:
        """Note where the inputs of a block come from."""
        for tensor in _tensors(inputs):
            for source, merge in self._sources(tensor):
                if source != block:
                    self.arrows[source, block] = self.arrows.get((source, block)) or merge

    def leave(self, block: int, outputs: Any) -> None:
        """Note what a block made."""
        for tensor in _tensors(outputs):
            self.kept.append(tensor)
            self.made[tensor.grad_fn] = block
            self.size.setdefault(block, tuple(tensor.shape[1:]))

    def _sources(self, tensor: Tensor) -> Iterator[tuple[int, str]]:
        if tensor is self.image:
            yield IMAGE, ""
            return
        waiting, seen = [(tensor.grad_fn, "")], set()
        while waiting:
            step, merge = waiting.pop()
            if step is None or step in seen:
                continue
            seen.add(step)
            if step in self.made:
                yield self.made[step], merge
            elif getattr(step, "variable", None) is self.image:
                yield IMAGE, merge
            else:
                found = next((word for name, word in OPERATIONS.items() if step.name().startswith(name)), "")
                waiting += [(below, found or merge) for below, _ in step.next_functions]


def architecture(
    method: Method, profile: Profile, blocks: Sequence[Block], title: str = "", result: str = "logits"
) -> Diagram:
    """The network of a method as a drawing.

    Args:
        method: its network is built on the meta device, so that the pass costs neither memory nor time.
        profile: gives the matrix and the width.
        blocks: in the order of the forward pass. What stands between two of them, such as poolings, is in the arrow.
        title: beginning of the alternative text; by default the name of the method.
        result: name of what comes out.

    Raises:
        InputError: a path that is no module, or a module that the forward pass does not use.

    Example:
        >>> from npcrepro.protocol.registry import find_method
        >>> paper, method = find_method("li2018/stepwise")
        >>> blocks = [Block("conv1", "first convolution"), Block("conv8", "last convolution", "score")]
        >>> [node.size for node in architecture(method, paper.profile("paper"), blocks).nodes]
        ['1 × 144 × 144', '80 × 144 × 144', '1 × 144 × 144', '1 × 144 × 144']
    """
    with torch.device("meta"):
        network = method.build(profile.width).eval().requires_grad_(True)
        image = torch.empty((1, *method.input_shape(profile)), requires_grad=True)
    modules = _modules(network, blocks, method.full_name)
    trace = _Trace(image)
    for number, found in enumerate(modules):
        for module in found:
            module.register_forward_pre_hook(
                lambda _, inputs, named, number=number: trace.enter(number, [inputs, *named.values()]), with_kwargs=True
            )
            module.register_forward_hook(lambda _, inputs, output, number=number: trace.leave(number, output))
    output = network(image)
    end = len(blocks)
    trace.enter(end, output)
    trace.leave(end, output)
    unused = [block.path for number, block in enumerate(blocks) if number not in trace.size]
    if unused:
        raise InputError(f"{method.full_name}: the forward pass does not use {', '.join(unused)}")
    trace.size[IMAGE] = tuple(image.shape[1:])
    made = registry.load(method.paper)
    inputs = [*method.channels, *(f"map of {made.method(use.method).title}" for use in method.uses if use.maps)]
    first, last = Block("", f"image: {', '.join(inputs)}", "data"), Block("", result, "data")
    nodes = []
    for number, box in enumerate([first, *blocks, last], IMAGE):
        size = trace.size[number]
        times = len(modules[number]) if box.path else 1
        nodes.append(Node(box.label, box.kind, " × ".join(map(str, size)), _scale(size, trace.size[IMAGE]), times))
    arrows = [Arrow(source + 1, target + 1, merge) for (source, target), merge in sorted(trace.arrows.items())]
    title = title or f"The network of {method.title}, from top to bottom:"
    return Diagram(nodes, arrows, title, "numbers: channels × size of the maps")


def _modules(network: nn.Module, blocks: Iterable[Block], name: str) -> list[list[nn.Module]]:
    """The modules of each block."""
    there = dict(network.named_modules())
    found = [[module for path, module in there.items() if fnmatchcase(path, block.path)] for block in blocks]
    for block, modules in zip(blocks, found, strict=True):
        if not modules:
            raise InputError(f"{name} has no module {block.path!r}; it has {', '.join(list(there)[1:9])} and others")
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _scale(size: tuple[int, ...], full: tuple[int, ...]) -> float:
    """Side of a map as a share of that of the image, mean over the axes; 1 for what has no map."""
    sides = prod(size[1:]) / prod(full[1:]) if len(size) == len(full) else 1.0
    return min(1.0, sides ** (1 / (len(full) - 1)))
