//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("attention", include_str!("../../shaders/attention.wgsl"));
