//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("abs_topk", include_str!("../../shaders/abs_topk.wgsl"));
