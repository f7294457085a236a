// abs_topk
