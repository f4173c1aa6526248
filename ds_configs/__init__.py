"""DeepSpeed JSON files: only what belongs to DeepSpeed. Batch, optimizer and clipping come from the recipe."""
