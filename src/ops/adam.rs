//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("adam", include_str!("../../shaders/adam.wgsl"));
