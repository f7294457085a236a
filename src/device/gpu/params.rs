//! The parameters of kernels: structs here, checked against those of the shaders.

use wgpu::naga;

/// A kernel's parameters, laid out as the WGSL struct of its uniform at binding 0. Declared by
/// [`params!`].
pub(crate) trait Params: bytemuck::Pod {
    /// The struct's fields in order.
    const FIELDS: &'static [Field];
}

/// One parameter: `u32` or `f32`, at an offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its name, the same on both sides.
    pub(crate) name: &'static str,
    /// Its type, the same word on both sides.
    pub(crate) ty: &'static str,
    /// Bytes before it.
    pub(crate) offset: u32,
}

/// What the uniform struct of a kernel must be: these fields, or one array of so many rows of them.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(super) fields: &'static [Field],
    pub(super) rows: Option<usize>,
}

/// Declares structs of kernel parameters. A kernel is not compiled unless the fields of its WGSL
/// struct are the same.
macro_rules! params {
    ($($(#[$meta:meta])* struct $name:ident { $($field:ident: $ty:ident),* $(,)? })*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(super) struct $name { $(pub(super) $field: $ty),* }

        impl $crate::device::Params for $name {
            const FIELDS: &'static [$crate::device::Field] = &[$($crate::device::Field {
                name: stringify!($field),
                ty: stringify!($ty),
                offset: std::mem::offset_of!($name, $field) as u32,
            }),*];
        }
    )* };
}

pub(crate) use params;

/// Returns the first difference between `block` and the uniform struct that an entry point reads.
pub(super) fn check(module: &naga::Module, uses: &naga::valid::FunctionInfo, block: Block) -> Result<(), String> {
    let Block { fields, rows } = block;
    let mut uniforms = module.global_variables.iter();
    let uniform = uniforms.find(|(handle, g)| g.space == naga::AddressSpace::Uniform && !uses[*handle].is_empty());
    let Some((_, uniform)) = uniform else { return Err("it reads no parameters".into()) };
    let naga::TypeInner::Struct { members, .. } = &module.types[uniform.ty].inner else {
        return Err("its parameters are not a struct".into());
    };
    let members = match (rows, &members[..]) {
        (None, _) => members,
        (Some(rows), [table]) => row_members(module, table.ty, rows, fields.len())?,
        (Some(_), _) => return Err("its parameters are not one array".into()),
    };
    if members.len() != fields.len() {
        return Err(format!("the shader has {} parameters, the launch {}", members.len(), fields.len()));
    }
    for (member, field) in members.iter().zip(fields) {
        let name = member.name.as_deref().unwrap_or_default();
        let ty = match module.types[member.ty].inner {
            naga::TypeInner::Scalar(naga::Scalar::U32) => "u32",
            naga::TypeInner::Scalar(naga::Scalar::F32) => "f32",
            _ => "no scalar of four bytes",
        };
        if (name, ty, member.offset) != (field.name, field.ty, field.offset) {
            let Field { name: known, ty: known_ty, offset } = field;
            return Err(format!(
                "`{name}: {ty}` at byte {} in the shader is `{known}: {known_ty}` at byte {offset} in the launch",
                member.offset
            ));
        }
    }
    Ok(())
}

/// The fields of a row, if `ty` is an array of so many rows of that many fields, without gaps.
fn row_members(
    module: &naga::Module,
    ty: naga::Handle<naga::Type>,
    rows: usize,
    fields: usize,
) -> Result<&Vec<naga::StructMember>, String> {
    if let naga::TypeInner::Array { base, size: naga::ArraySize::Constant(count), stride } = module.types[ty].inner
        && let naga::TypeInner::Struct { members, .. } = &module.types[base].inner
        && (count.get() as usize, stride as usize) == (rows, 4 * fields)
    {
        return Ok(members);
    }
    Err(format!("its parameters are not an array of {rows} rows of {fields} fields"))
}

#[cfg(test)]
mod tests {
    use super::*;

    params! {
        struct Good { n: u32, scale: f32 }
        struct Renamed { n: u32, factor: f32 }
        struct Retyped { n: u32, scale: u32 }
        struct Swapped { scale: f32, n: u32 }
        struct Short { n: u32 }
        struct Long { n: u32, scale: f32, more: u32 }
    }

    #[test]
    fn a_planted_mismatch_is_refused() {
        let wgsl = "
            struct Params { n: u32, scale: f32 }
            @group(0) @binding(0) var<uniform> p: Params;
            @group(0) @binding(1) var<storage, read_write> x: array<f32>;
            @compute @workgroup_size(1) fn f() { x[p.n] = p.scale; }
            @compute @workgroup_size(1) fn g() { x[0] = 1.0; }";
        let module = naga::front::wgsl::parse_str(wgsl).unwrap();
        let mut validator =
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
        let info = validator.validate(&module).unwrap();
        let check = |entry, fields: &[Field]| {
            let fields: &'static [Field] = Box::leak(Box::from(fields));
            check(&module, info.get_entry_point(entry), Block { fields, rows: None })
        };
        assert_eq!(check(0, Good::FIELDS), Ok(()));
        for (fields, reason) in [
            (Renamed::FIELDS, "`scale: f32` at byte 4 in the shader is `factor: f32` at byte 4"),
            (Retyped::FIELDS, "is `scale: u32` at byte 4"),
            (Swapped::FIELDS, "`n: u32` at byte 0 in the shader is `scale: f32` at byte 0"),
            (Short::FIELDS, "the shader has 2 parameters, the launch 1"),
            (Long::FIELDS, "the shader has 2 parameters, the launch 3"),
        ] {
            let message = check(0, fields).unwrap_err();
            assert!(message.contains(reason), "{message} should say {reason}");
        }
        let moved = [Field { offset: 8, ..Good::FIELDS[0] }, Good::FIELDS[1]];
        assert!(check(0, &moved).unwrap_err().contains("at byte 8 in the launch"));
        assert_eq!(check(1, Good::FIELDS), Err("it reads no parameters".into()));
    }

    params! {
        struct Row { n: u32, scale: f32, first: u32, end: u32 }
    }

    #[test]
    fn a_planted_mismatch_of_a_table_is_refused() {
        let wgsl = "
            struct Row { n: u32, scale: f32, first: u32, end: u32 }
            struct Params { rows: array<Row, 3> }
            @group(0) @binding(0) var<uniform> p: Params;
            @group(0) @binding(1) var<storage, read_write> x: array<f32>;
            @compute @workgroup_size(1) fn f() { x[0] = p.rows[1].scale; }";
        let module = naga::front::wgsl::parse_str(wgsl).unwrap();
        let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), Default::default())
            .validate(&module)
            .unwrap();
        let check = |fields, rows| check(&module, info.get_entry_point(0), Block { fields, rows });
        assert_eq!(check(Row::FIELDS, Some(3)), Ok(()));
        for (fields, rows, reason) in [
            (Row::FIELDS, Some(4), "not an array of 4 rows"),
            (Good::FIELDS, Some(3), "3 rows of 2 fields"),
            (Row::FIELDS, None, "the shader has 1 parameters, the launch 4"),
        ] {
            let message = check(fields, rows).unwrap_err();
            assert!(message.contains(reason), "{message} should say {reason}");
        }
    }
}
