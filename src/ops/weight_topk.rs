//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("weight_topk", include_str!("../../shaders/weight_topk.wgsl"));
