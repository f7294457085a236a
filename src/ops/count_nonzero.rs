//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("count_nonzero", include_str!("../../shaders/count_nonzero.wgsl"));
