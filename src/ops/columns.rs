//! To be written.

use crate::device::Shader;

/// The kernels.
pub const SHADER: Shader = Shader::new("columns", include_str!("../../shaders/columns.wgsl"));
