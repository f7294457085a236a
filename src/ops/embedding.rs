//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("embedding", include_str!("../../shaders/embedding.wgsl"));
