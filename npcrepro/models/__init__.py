"""Networks: tensors in, logits out; no files, no knowledge of papers' protocols."""
