//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("relu", include_str!("../../shaders/relu.wgsl"));
