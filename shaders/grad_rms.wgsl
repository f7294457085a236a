// grad_rms
