//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("sparse_linear", include_str!("../../shaders/sparse_linear.wgsl"));
