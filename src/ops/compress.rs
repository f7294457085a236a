//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("compress", include_str!("../../shaders/compress.wgsl"));
