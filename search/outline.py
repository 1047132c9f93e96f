"""A plan in words, for ``--plan``."""

import os
from collections import Counter
from collections.abc import Iterator

import torch

from search.deep_first import applies
from search.plan import Plan, describe_values, fold_sizes
from search.resources import share_out
from search.shelves import memo_folder
from trainable.backbone import Backbone
from trainable.images import ImageSet
from trainable.inventory import format_bytes


def outline(plan: Plan) -> str:
    """All of it, in a text of many lines."""
    lines = [f"data        {plan.images.source}", f"classes     {', '.join(plan.images.classes)}"]
    lines += [f"{split:<11} {_count(plan.images, split)}" for split in ("train", "val", "test")]
    lines += _folds(plan)
    for backbone in plan.backbones.values():
        lines += ["", f"backbone    {backbone.name}: {backbone.weights_note}", *_stage_table(backbone)]
        lines += ["", *_shelf_table(plan, backbone)]
    lines += ["", "space", *("  " + line for line in plan.space.describe().splitlines()), "", "first trials"]
    lines += [f"  {first.name}: {describe_values(first.values)}" for first in plan.first]
    return "\n".join([*lines, "", *_search_table(plan)])


def _count(images: ImageSet, split: str) -> str:
    records = images.split(split)
    if not records:
        return "none"
    counts = Counter(record.label for record in records)
    return f"{len(records):,} images: " + ", ".join(f"{counts[i]:,} {name}" for i, name in enumerate(images.classes))


def _folds(plan: Plan) -> list[str]:
    sizes = fold_sizes(plan.config, plan.images)
    if not sizes:
        return []
    each = "–".join(map(str, sorted(set(sizes))))
    running = "a configuration runs the first, and the others while it is in the running"
    return [f"folds       {len(sizes)} of {each} of the train images; {running}"]


def _search_table(plan: Plan) -> list[str]:
    config, search = plan.config, plan.config.search
    each = " a fold" if config.data.folds else ""
    limits = [f"{search.trials} trials of at most {config.train.epochs} epochs{each}"]
    limits += [f"{search.time_budget:g} s"] if search.time_budget else []
    limits += [f"until {search.metric} reaches {search.target:g}"] if search.target is not None else []
    little_by_little = ", shallower freeze depths as they are seen to pay" if applies(plan.space, search) else ""
    here = share_out(config.resources, [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}])
    return [
        f"search      {', '.join(limits)}",
        f"at a time   {here.concurrency} on this machine, each on {here.cpus_per_trial:g} CPUs and "
        f"{here.gpus_per_trial:g} GPUs",
        f"sampler     {search.sampler.name}{little_by_little}",
        f"pruner      {search.pruner.name}",
    ]


def _stage_table(backbone: Backbone) -> list[str]:
    total = sum(stage.flops for stage in backbone.stages)
    lines = [f"  {'freeze_depth':>12}  {'stages up to':<32} {'parameters':>12} {'share of FLOPs':>15}"]
    for depth, stage in enumerate(backbone.stages, 1):
        parameters = sum(parameter.numel() for parameter in stage.parameters())
        label = str(depth) if depth < len(backbone.stages) else "(the head)"
        lines.append(f"  {label:>12}  {stage.name:<32} {parameters:>12,} {stage.flops / total:>15.1%}")
    return lines


def _shelf_table(plan: Plan, backbone: Backbone) -> Iterator[str]:
    memo = plan.config.memo
    if not memo.enabled:
        yield "memo        off: every trial computes its frozen stages anew"
        return
    yield f"memo        {memo_folder(memo)}, at most {format_bytes(plan.memo_budget)}; activations kept:"
    yield f"  {'freeze_depth':>12}  {'kept':<5} {'takes':>10}  why"
    for shelf in sorted(plan.shelves[backbone.name], key=lambda shelf: shelf.depth):
        kept = "yes" if shelf.kept else "no"
        size = format_bytes(shelf.bytes)
        yield f"  {shelf.depth or 'the views':>12}  {kept:<5} {size:>10}  {shelf.reason}"
