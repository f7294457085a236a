//! sparsity.
