//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("grad_rms", include_str!("../../shaders/grad_rms.wgsl"));
