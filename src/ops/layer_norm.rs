//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("layer_norm", include_str!("../../shaders/layer_norm.wgsl"));
