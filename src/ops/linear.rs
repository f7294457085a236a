//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("linear", include_str!("../../shaders/linear.wgsl"));
