//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("rms_norm", include_str!("../../shaders/rms_norm.wgsl"));
