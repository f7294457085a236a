// weight_topk
