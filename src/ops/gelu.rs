//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("gelu", include_str!("../../shaders/gelu.wgsl"));
