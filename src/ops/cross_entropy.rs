//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("cross_entropy", include_str!("../../shaders/cross_entropy.wgsl"));
